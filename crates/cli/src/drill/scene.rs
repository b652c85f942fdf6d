//! The pool a drill plays on: looking at it, striking it, bringing back what was struck.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::admin::Request;
use tokio_postgres::{Config, NoTls};

use super::counted::Counted;
use super::writer;
use crate::admin;
use crate::args::{DrillArgs, Fault, Through};
use crate::clock;
use crate::demo::fault::{Target, restart};
use crate::demo::plan::{MemberFiles, Plan};
use crate::demo::supervise;
use crate::deployment::{Deployment, Found, PoolEntry};
use crate::output::hinted;
use crate::picture::{Picture, State};

/// From one look at the pool to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// A frozen member must not hold up a look at the others.
const LOOK_DEADLINE: Duration = Duration::from_millis(150);
/// How long writes may fail before the drill gives up.
const RESUME_DEADLINE: Duration = Duration::from_secs(90);
/// How long the pool may take to be mirrored (again).
const READY_DEADLINE: Duration = Duration::from_secs(300);
/// A Front End is asked for what it has counted, while nothing is wrong.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
const FEW_SECONDS: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Scene {
    deployment: Deployment,
    pool: PoolEntry,
    demo: Option<(PathBuf, Plan)>,
    pub profile: String,
    /// The servers themselves, as far as they are known; otherwise the Front End.
    pub hosts: Vec<Config>,
    /// The Front End, if the clients write through it.
    pub door: Option<Config>,
    /// What the last fault hit. Cells, because a run only borrows the scene.
    struck: std::cell::RefCell<Option<Target>>,
}

impl Scene {
    pub fn set(found: &Found, args: &DrillArgs) -> anyhow::Result<Scene> {
        let pool = found.deployment.pool(&args.pool)?.clone();
        let demo = match &found.demo {
            Some(dir) => Some((dir.clone(), Plan::read(dir)?)),
            None => None,
        };
        if demo.is_none() && args.fault != Fault::Manual {
            return Err(hinted(
                format!(
                    "{} kills processes, which a drill does on a demo pool only",
                    args.fault.name()
                ),
                "rehearse an ordered failover: backstay drill POOL manual --connect URL",
            ));
        }
        let plan = demo.as_ref().map(|(_, plan)| plan);
        let (hosts, door) = addresses(args, plan)?;
        let lost_for_good = matches!(args.fault, Fault::Crash | Fault::HostLoss | Fault::Freeze);
        if pool.witness.is_none() && (lost_for_good || args.fault == Fault::WitnessLoss) {
            return Err(hinted(
                format!("{} has no witness, so it does not fail over by itself", args.pool),
                "add one (backstay pool witness set), or rehearse manual or mirror-loss",
            ));
        }
        Ok(Scene {
            deployment: found.deployment.clone(),
            profile: pool.profile.clone().unwrap_or_else(|| "unknown".to_owned()),
            hosts,
            door,
            pool,
            demo,
            struck: std::cell::RefCell::new(None),
        })
    }

    /// What the pool's Front Ends have counted, together; `None` if one of them does not answer.
    pub async fn counted(&self) -> Option<Counted> {
        let front_ends = admin::front_ends(&self.deployment, &self.pool, ANSWER_DEADLINE).await;
        Counted::of(front_ends.into_iter().map(|front_end| front_end.answer))
    }

    pub async fn look(&self) -> anyhow::Result<Picture> {
        admin::picture_within(&self.deployment, &self.pool, LOOK_DEADLINE).await
    }

    /// Looks until `good` holds.
    async fn look_until(
        &self,
        what: &str,
        span: Duration,
        good: impl Fn(&Picture) -> bool,
    ) -> anyhow::Result<Picture> {
        let deadline = clock::now() + span;
        loop {
            let picture = self.look().await?;
            if good(&picture) {
                return Ok(picture);
            }
            if clock::now() > deadline {
                return Err(hinted(
                    format!(
                        "after {} s still not so: {what} ({})",
                        span.as_secs(),
                        picture.sentence
                    ),
                    format!("see why: backstay pool status {}", self.pool.name),
                ));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Mirrored, streaming, every member there, and automatic failover armed if there is a witness.
    pub async fn wait_until_ready(&self, fault: Fault) -> anyhow::Result<Picture> {
        let armed = self.pool.witness.is_some();
        let all = self.demo.is_some() || fault != Fault::Manual;
        self.look_until("the pool is mirrored and ready", READY_DEADLINE, |picture| {
            picture.redundant()
                && (!armed || picture.automatic_failover.armed)
                && (!all || picture.members.iter().all(|member| member.answered))
        })
        .await
    }

    pub async fn wait_for(&self, what: &str, good: impl Fn() -> bool) -> anyhow::Result<()> {
        let deadline = clock::now() + FEW_SECONDS;
        while !good() {
            anyhow::ensure!(clock::now() < deadline, "after {FEW_SECONDS:?} still not so: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// The host of the connection string that takes writes now.
    pub async fn principal_host(&self) -> anyhow::Result<Config> {
        for host in &self.hosts {
            let attempt = tokio::time::timeout(FEW_SECONDS, host.connect(NoTls)).await;
            if matches!(attempt, Ok(Ok(_))) {
                return Ok(host.clone());
            }
        }
        anyhow::bail!("no host of the connection string takes writes")
    }

    fn member(&self, name: Option<&str>) -> anyhow::Result<MemberFiles> {
        let found = self.demo.iter().flat_map(|(dir, plan)| plan.members(dir));
        let mut found = found.filter(|member| Some(member.name.as_str()) == name);
        found.next().ok_or_else(|| anyhow::anyhow!("the demo has no member {name:?}"))
    }

    /// Plays the fault.
    pub async fn strike(&self, fault: Fault, before: &Picture) -> anyhow::Result<()> {
        let principal = before.principal.as_deref();
        let target = match fault {
            Fault::Manual => return self.fail_over(principal).await,
            Fault::Crash => Target::postgres(self.member(principal)?),
            Fault::HostLoss | Fault::Freeze => Target::host(self.member(principal)?),
            Fault::MirrorLoss => Target::host(self.member(before.mirror.as_deref())?),
            Fault::WitnessLoss => Target::host(self.member(self.pool.witness.as_deref())?),
        };
        self.struck.replace(Some(target.clone()));
        let hit = match fault {
            Fault::Freeze => target.freeze()?,
            Fault::Manual
            | Fault::Crash
            | Fault::HostLoss
            | Fault::MirrorLoss
            | Fault::WitnessLoss => target.kill()?,
        };
        anyhow::ensure!(hit > 0, "no process of {} runs", target.words());
        Ok(())
    }

    async fn fail_over(&self, principal: Option<&str>) -> anyhow::Result<()> {
        let name = principal.unwrap_or(&self.pool.first);
        let request = Request::Failover { pool: self.pool.name.clone(), to: None, dry_run: false };
        let member = self.deployment.member(name)?;
        admin::ask(&self.deployment.name, member, &request, admin::CHANGE_DEADLINE).await?;
        Ok(())
    }

    /// Waits until the fault has had its effect and a row has been acknowledged after that.
    pub async fn wait_until_resumed(
        &self,
        fault: Fault,
        before: &Picture,
        last: impl Fn() -> Option<Instant>,
    ) -> anyhow::Result<()> {
        let effect = |picture: &Picture| match fault {
            Fault::Manual | Fault::Crash | Fault::HostLoss | Fault::Freeze => {
                picture.served() && picture.term > before.term
            }
            Fault::MirrorLoss => picture.state == State::Exposed,
            Fault::WitnessLoss => {
                picture.witness.as_ref().is_some_and(|witness| witness.connected == Some(false))
            }
        };
        self.look_until("writes go on after the fault", RESUME_DEADLINE, effect).await?;
        let seen: Instant = clock::now();
        self.wait_for("a row is acknowledged after the fault", || {
            last().is_some_and(|last| last > seen)
        })
        .await
    }

    /// Brings back what was struck. False if nothing had to be done.
    pub async fn bring_back(&self, fault: Fault) -> anyhow::Result<bool> {
        let struck = self.struck.take();
        let (Some(target), Some((dir, _))) = (struck, &self.demo) else { return Ok(false) };
        match fault {
            Fault::Manual | Fault::Crash => return Ok(false),
            Fault::Freeze => {
                target.thaw()?;
            }
            Fault::HostLoss | Fault::MirrorLoss | Fault::WitnessLoss => {
                if supervise::agent(&target.member).is_none() {
                    restart(dir, &target).await?;
                }
            }
        }
        Ok(true)
    }
}

/// Where the servers are, and where the Front End is if the clients write through it.
fn addresses(
    args: &DrillArgs,
    plan: Option<&Plan>,
) -> anyhow::Result<(Vec<Config>, Option<Config>)> {
    let servers = plan.map(|plan| plan.connection_strings().uri);
    match args.through {
        Through::Direct => {
            let connect = args.connect.clone().or(servers).ok_or_else(|| {
                hinted(
                    "the drill does not know how its clients connect",
                    "name all hosts: --connect \"postgresql://USER@HOST1,HOST2/DATABASE\"",
                )
            })?;
            Ok((writer::hosts_of(&connect)?, None))
        }
        Through::Gateway => {
            let known = plan.and_then(Plan::front_end_strings).map(|strings| strings.uri);
            let connect = args.connect.clone().or(known).ok_or_else(|| {
                hinted(
                    "the drill does not know where the Front End is",
                    "name its address: --connect \"postgresql://USER@HOST/DATABASE\"\n\
                     (an older demo gets a Front End when it is started again)",
                )
            })?;
            let door = writer::any_of(&connect)?;
            let hosts = match &servers {
                Some(servers) => writer::hosts_of(servers)?,
                None => vec![door.clone()],
            };
            Ok((hosts, Some(door)))
        }
    }
}
