//! An adoption that is interrupted after any of its steps goes on, or is undone.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use agent::postgres::adopt::{self, Agent, Level, Manifest, Stage, Taking};
use agent::postgres::instance::ROLE;

use crate::cluster;

const STOP: Duration = Duration::from_secs(30);
const STEPS: usize = 6;

/// A server that somebody has started by hand.
struct Theirs {
    dir: PathBuf,
    port: u16,
}

impl Theirs {
    fn new(name: &str) -> Theirs {
        let dir = cluster::scratch(&format!("{}-{name}", std::process::id()));
        let theirs = Theirs { dir, port: cluster::free_port() };
        let mut initdb = theirs.program("initdb");
        let user = cluster::os_user().name;
        initdb.arg("-D").arg(theirs.data()).args(["-U", &user, "-A", "trust", "--no-sync"]);
        cluster::run(&mut initdb);
        let path = theirs.data().join("postgresql.conf");
        let before = std::fs::read_to_string(&path).unwrap();
        let own = format!(
            "port = {}\nlisten_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n",
            theirs.port,
            theirs.dir.display()
        );
        std::fs::write(&path, before + &own).unwrap();
        theirs.start();
        theirs
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = cluster::os_user().command(cluster::bin_dir().join(name));
        command.current_dir("/");
        command
    }

    fn start(&self) {
        let mut start = self.program("pg_ctl");
        start.args(["start", "-s", "-w", "-D"]).arg(self.data());
        start.arg("-l").arg(self.dir.join("log"));
        cluster::run(&mut start);
    }

    fn sql(&self, statement: &str) -> String {
        let mut psql = self.program("psql");
        psql.args(["-XAtqw", "-d", "postgres", "-c", statement, "-h"]).arg(&self.dir);
        psql.args(["-p", &self.port.to_string(), "-U", &cluster::os_user().name]);
        let out = psql.output().unwrap();
        assert!(out.status.success(), "{statement}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn begin(&self) -> Taking {
        let data = std::fs::canonicalize(self.data()).unwrap();
        let found = adopt::look("shop", &data, None).unwrap();
        let instance = found.instance("shop", &self.files()).unwrap();
        let grave = adopt::judge(&found, &instance, &Agent::default());
        assert!(grave.iter().all(|finding| finding.level != Level::Error), "{grave:#?}");
        Taking::begin("shop", found, &self.files(), false).unwrap()
    }

    /// Undoes it, and sees that the server is its former owner's again.
    async fn give_back(&self) {
        let mut manifest = Manifest::read(&self.files()).unwrap().unwrap();
        let instance = manifest.found.instance("shop", &self.files()).unwrap();
        adopt::stop_ours(&instance, STOP).await.unwrap_or_else(|error| panic!("{error}"));
        adopt::give_back(&instance, &mut manifest).unwrap();
        // Interrupted, it is asked again.
        adopt::give_back(&instance, &mut manifest).unwrap();
        adopt::start_again(&instance, &manifest).unwrap();
        adopt::drop_roles(&instance, &manifest).unwrap();
        manifest.close(&self.files()).unwrap();
        assert_eq!(self.sql("SELECT count(*) FROM old"), "100");
        assert_eq!(self.sql("SHOW fsync"), "off");
        assert_eq!(self.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'backstay'"), "0");
        assert!(!self.data().join("standby.signal").exists());
        assert!(!self.data().join("backstay.pool").exists());
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        let _ = stop.args(["stop", "-s", "-m", "immediate", "-D"]).arg(self.data()).output();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn step(taking: &mut Taking, number: usize) {
    match number {
        0 => {}
        1 => taking.keep_files().unwrap(),
        2 => taking.make_role().unwrap(),
        3 => taking.forbid_start().unwrap(),
        4 => taking.stop(STOP).await.unwrap(),
        _ => taking.mark().unwrap(),
    }
}

#[tokio::test]
async fn an_adoption_interrupted_after_any_step_goes_on_or_is_undone() {
    let theirs = Theirs::new("adopt");
    theirs.sql("CREATE TABLE old AS SELECT generate_series(1, 100)");
    for last in 0..STEPS {
        let mut taking = theirs.begin();
        for number in 0..=last {
            step(&mut taking, number).await;
        }
        drop(taking);
        theirs.give_back().await;

        let mut taking = theirs.begin();
        for number in 0..=last {
            step(&mut taking, number).await;
        }
        let instance = taking.instance.clone();
        drop(taking);
        let mut taking = Taking::resume("shop", &theirs.files()).unwrap().unwrap();
        assert!(Taking::resume("other", &theirs.files()).is_err());
        if taking.manifest.stage == Stage::Begun {
            taking.keep_files().unwrap();
            if taking.runs() {
                for number in 2..5 {
                    step(&mut taking, number).await;
                }
            }
            taking.mark().unwrap();
        }
        assert!(adopt::is_taken(&instance), "after step {last}");
        assert!(instance.standby_signal().exists());
        assert!(agent::postgres::create::initialise_now(&instance).is_err(), "never made anew");
        theirs.give_back().await;
    }
}

#[tokio::test]
async fn what_was_stopped_before_the_role_was_made_is_not_taken() {
    let theirs = Theirs::new("adopt-role");
    theirs.sql("CREATE TABLE old AS SELECT generate_series(1, 100)");
    let mut taking = theirs.begin();
    taking.stop(STOP).await.unwrap();
    assert!(taking.mark().unwrap_err().to_string().contains(ROLE_WORDS));
    assert!(!adopt::is_taken(&taking.instance));
    drop(taking);
    theirs.start();
    let mut taking = Taking::resume("shop", &theirs.files()).unwrap().unwrap();
    assert!(taking.runs());
    for number in 1..STEPS {
        step(&mut taking, number).await;
    }
    let instance = taking.instance.clone();
    assert!(adopt::is_taken(&instance));
    // Somebody writes all the same.
    std::fs::remove_file(instance.standby_signal()).unwrap();
    theirs.start();
    assert_eq!(theirs.sql(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{ROLE}'")), "t");
    theirs.sql("CHECKPOINT");
    assert!(!adopt::is_taken(&instance), "no session begins with data that went on");
    drop(taking);
    theirs.give_back().await;
}

const ROLE_WORDS: &str = "before Backstay's role was made";
