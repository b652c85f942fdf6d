//! How each order is performed on the server; what it comes to is told as a fact.

use std::sync::Arc;
use std::time::Duration;

use session::{Fact, Order, Partner, Term, Timeline};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::condition::{Admitted, Condition, State};
use super::drain::Drain;
use super::driver::Configured;
use super::error::Error;
use super::follow::{self, Follow};
use super::promotion;
use super::server::{Mode, Server};
use super::settings::{self, Listen, Upstream};
use super::teller::Teller;
use super::timelines;

/// The rest before a start that failed is tried again.
const FIRST_REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How long a standby has to shut down cleanly where nothing depends on it.
const POLITE_STOP: Duration = Duration::from_secs(3);

/// After a reload: until it is looked which settings it has left for a restart.
const LOOK: Duration = Duration::from_millis(500);

/// Works on orders.
pub struct Worker {
    pub server: Server,
    pub touch: mpsc::Receiver<Term>,
    pub teller: Teller,
    pub owner: Partner,
    pub partner: Option<Upstream>,
    pub drain: Drain,
    /// The barrier and the checkpoint.
    pub tasks: JoinSet<()>,
}

impl Worker {
    /// May be dropped at any moment.
    pub async fn perform(&mut self, order: Order) {
        self.close_before(&order);
        match order {
            Order::RunAlone { reachable } => self.run_alone(reachable).await,
            Order::Follow { term, upstream, timeline, own } => {
                if upstream == self.owner {
                    tracing::error!(%term, "a partner was ordered to follow itself");
                    return;
                }
                while self.touch.try_recv().is_ok() {}
                let Some(upstream_at) = self.partner.clone() else {
                    tracing::error!(%term, "there is no other partner that could be followed");
                    return;
                };
                let follow =
                    Follow { term, upstream: upstream_at, partner: upstream, timeline, own };
                follow::run(&mut self.server, &follow, &mut self.touch, &self.teller).await;
            }
            Order::PreparePromotion { term } => self.prepare(term).await,
            Order::Promote { term, timeline, fork } => {
                self.teller.doing("promoting");
                let promoted = promotion::promote(&mut self.server, timeline, fork).await;
                let fact = match promoted {
                    Ok(promoted) => Fact::Promoted {
                        term,
                        incarnation: promoted.incarnation,
                        fork: promoted.fork,
                    },
                    Err(error) => {
                        self.teller.problem(&error);
                        Fact::PromotionFailed { term }
                    }
                };
                self.teller.fact(fact).await;
            }
            Order::CommitBarrier { promotion } => self.commit_barrier(promotion),
            Order::AdmitClients { term } => self.admit_clients(term).await,
            Order::Stop => {
                self.teller.doing("stopping");
                self.server.stop().await;
                self.teller.fact(Fact::Stopped).await;
            }
            Order::ShutDown { deadline } => self.shut_down(deadline).await,
            Order::Touch { .. }
            | Order::OpenGuard
            | Order::CloseGuard
            | Order::ReadPosition { .. } => {}
        }
    }

    /// Takes over what is new, and tells what has to wait for a restart.
    pub fn configure(&mut self, configured: Configured) {
        let Configured { instance, partner, drain } = configured;
        self.partner = partner;
        self.drain = drain;
        let before = Arc::clone(self.server.instance());
        if let Err(error) = self.server.configure(Arc::clone(&instance)) {
            self.teller.problem(&error);
            return;
        }
        tracing::info!(pool = instance.pool, "PostgreSQL is given its changed configuration");
        let mut waiting = settings::changed_on_the_command_line(&before, &instance);
        let (Ok(sql), Some(pid)) = (self.server.sql(), self.server.pid()) else { return };
        let (sql, teller) = (Arc::clone(sql), self.teller.clone());
        // Beside: a stop must not wait for this.
        self.tasks.spawn(async move {
            // The signal was given; the postmaster reads its files a little later.
            sleep(LOOK).await;
            waiting.extend(settings::waiting(&sql).await.unwrap_or_default());
            waiting.sort();
            waiting.dedup();
            teller.change(|condition| {
                condition.waiting = (!waiting.is_empty()).then_some((pid, waiting));
            });
        });
    }

    /// What ends this server's service is told before it is begun.
    fn close_before(&self, order: &Order) {
        match order {
            Order::RunAlone { .. }
            | Order::Follow { .. }
            | Order::PreparePromotion { .. }
            | Order::Stop => self.teller.change(Condition::close),
            Order::Promote { .. }
            | Order::CommitBarrier { .. }
            | Order::AdmitClients { .. }
            | Order::ShutDown { .. }
            | Order::Touch { .. }
            | Order::OpenGuard
            | Order::CloseGuard
            | Order::ReadPosition { .. } => {}
        }
    }

    /// Tries until it runs.
    async fn run_alone(&mut self, reachable: bool) {
        self.tasks.shutdown().await;
        let listen = if reachable { Listen::Port } else { Listen::SocketOnly };
        let mut rest = FIRST_REST;
        loop {
            self.teller.doing("starting as a standby without upstream");
            match self.run_alone_once(listen).await {
                Ok(fact) => {
                    self.teller.no_problem();
                    self.teller.fact(fact).await;
                    return;
                }
                Err(error) => self.teller.problem(&error),
            }
            sleep(rest).await;
            rest = LONGEST_REST.min(rest * 2);
        }
    }

    async fn run_alone_once(&mut self, listen: Listen) -> Result<Fact, Error> {
        let server = &mut self.server;
        let fits = server.mode().is_some_and(|mode| mode.listen == listen);
        if server.is_standby().await {
            if fits {
                server.isolate().await?;
            } else {
                server.shut_down(POLITE_STOP).await?;
                server.start(Mode::alone(listen)).await?;
            }
        } else {
            server.start(Mode::alone(listen)).await?;
        }
        server.replayed().await?;
        let (_, position) = server.state().await?;
        let incarnation = server.incarnation(position.timeline).await?;
        Ok(Fact::Started { incarnation, position })
    }

    async fn prepare(&mut self, term: Term) {
        self.teller.doing("preparing the promotion");
        let fact = match promotion::prepare(&mut self.server).await {
            Ok(prepared) => Fact::PromotionPrepared {
                term,
                position: prepared.position,
                boundary: prepared.boundary,
                newest: prepared.newest,
            },
            Err(error) => {
                self.teller.problem(&error);
                Fact::PromotionFailed { term }
            }
        };
        self.teller.fact(fact).await;
    }

    fn commit_barrier(&mut self, promotion: session::Promotion) {
        let connection = self.server.take_barrier();
        let instance = Arc::clone(self.server.instance());
        let teller = self.teller.clone();
        self.tasks.spawn(async move {
            let begun = Instant::now();
            promotion::commit_barrier(&instance, connection, promotion).await;
            tracing::info!(took = ?begun.elapsed(), "the barrier is committed");
            teller.fact(Fact::BarrierCommitted { term: promotion.term }).await;
        });
    }

    async fn admit_clients(&mut self, term: Term) {
        while let Err(error) = promotion::admit_clients(&mut self.server).await {
            self.teller.problem(&error);
            if self.server.sql().map_or(true, |sql| sql.is_closed()) {
                return;
            }
            sleep(FIRST_REST).await;
        }
        let timelines = self.timelines().await;
        self.teller.change(|condition| {
            condition.problem = None;
            condition.state = State::Primary;
            condition.open = true;
            condition.admitted = Some(Admitted { term, timelines });
        });
        let connection = self.server.take_spare();
        let instance = Arc::clone(self.server.instance());
        let teller = self.teller.clone();
        self.tasks.spawn(async move {
            promotion::checkpoint(&instance, connection).await;
            teller.fact(Fact::Checkpointed { term }).await;
        });
        if let Err(error) = self.server.open_spares().await {
            self.teller.problem(&error);
        }
    }

    async fn timelines(&self) -> Vec<Timeline> {
        let read = async {
            let (_, position) = self.server.state().await?;
            timelines::history_of(self.server.instance(), position.timeline)
        };
        match read.await {
            Ok(history) => history.timelines(),
            Err(error) => {
                tracing::error!(%error, "commits in doubt cannot be resolved in this term");
                Vec::new()
            }
        }
    }

    /// Before a principal shuts down for its mirror: the Front Ends' transactions end first.
    async fn drain(&self) {
        let Some(term) = self.teller.admitted() else { return };
        if !self.drain.begin() {
            return;
        }
        let begun = Instant::now();
        self.teller.change(|condition| condition.handing_over = true);
        let all = self.drain.wait(term).await;
        tracing::info!(took = ?begun.elapsed(), all, "the Front Ends have drained");
    }

    async fn shut_down(&mut self, deadline: Duration) {
        self.teller.doing("shutting down");
        let begun = Instant::now();
        // Sessions go on writing meanwhile, and the checkpoint of the shutdown has little to do.
        if let Ok(sql) = self.server.sql() {
            let _ = timeout(deadline / 2, sql.run("CHECKPOINT")).await;
        }
        // The deadline is the shutdown's: meanwhile everybody is served.
        let left = deadline.saturating_sub(begun.elapsed());
        self.drain().await;
        let down = self.server.shut_down(left).await;
        let end = down.and_then(|control| match control {
            Some(control) => control.checkpoint_end(self.server.instance()).map(Some),
            None => Ok(None),
        });
        let fact = match end {
            Ok(Some(position)) => Fact::ShutDown { position },
            Ok(None) => Fact::ShutDownLate,
            Err(error) => {
                self.teller.problem(&error);
                Fact::ShutDownLate
            }
        };
        tracing::info!(took = ?begun.elapsed(), ?fact, "shut down");
        self.teller.fact(fact).await;
    }

    /// After an unexpected end: nothing of the server may stay.
    pub async fn clean_up(&mut self) {
        self.tasks.shutdown().await;
        self.server.stop().await;
    }
}
