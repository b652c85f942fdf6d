//! A Front End is replaced by new processes of it, again and again, under clients that come all the
//! time: none is refused, and who was there before stays with the process that has its session.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::front_end::{Failed, Session, fails, until};
use crate::stage::Demo;

/// Another process of the demo's Front End; it ends with the test.
struct Next(Child);

impl Next {
    /// Returns when commands are answered by it, and so clients are let in by it.
    fn start(demo: &Demo) -> Next {
        let mut command = demo.place.command(&["front-end", "--config", "demo/fe1/config.toml"]);
        // What it logs goes where the one before it logs, for whoever looks after a failure.
        let log = demo.place.path().join("demo/fe1/front-end.log");
        let log = std::fs::OpenOptions::new().append(true).open(log).unwrap();
        let next = Next(command.stderr(log).spawn().unwrap());
        let pid = next.0.id();
        until("the next process serves", || demo.front_end_status()["pid"] == pid);
        next
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some_and(|status| status.success())
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that logs in, asks and leaves, again and again.
struct Comers {
    end: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Failed>>,
}

impl Comers {
    fn start(uri: &str) -> Comers {
        let (end, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (uri, ended, counted) = (uri.to_owned(), Arc::clone(&end), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                let come = Session::open(&uri).and_then(|session| session.ask("SELECT 1"));
                failed.extend(come.err());
                counted.fetch_add(1, Ordering::SeqCst);
            }
            failed
        });
        Comers { end, count, thread }
    }

    fn go_on(&self) {
        let before = self.count.load(Ordering::SeqCst);
        until("clients are let in", || self.count.load(Ordering::SeqCst) > before + 5);
    }
}

#[test]
fn replaced_three_times_it_refuses_nobody_and_keeps_whom_it_has() {
    let demo = Demo::start("fe-handover", &["--profile", "standard"]);
    demo.wait_until_armed();
    let uri = crate::clients::front_end(&demo);
    let first_pid = demo.front_end_status()["pid"].as_i64().unwrap();
    let old = Session::open(&uri).unwrap();
    old.ask("SET app.user_id = '42'").unwrap();
    old.ask("BEGIN").unwrap();
    let comers = [0, 1, 2].map(|_| Comers::start(&uri));
    comers.iter().for_each(Comers::go_on);

    let mut second = Next::start(&demo);
    comers.iter().for_each(Comers::go_on);
    let mut third = Next::start(&demo);
    until("the second process ends", || second.has_ended());
    let mut fourth = Next::start(&demo);
    until("the third process ends", || third.has_ended());
    comers.iter().for_each(Comers::go_on);
    for Comers { end, thread, .. } in comers {
        end.store(true, Ordering::SeqCst);
        let failed = thread.join().unwrap();
        assert!(failed.is_empty(), "{failed:?}\n{}", demo.logs());
    }

    // Its transaction goes on, and what it asks to cancel reaches the process that has it.
    assert_eq!(old.value("SHOW app.user_id"), "42");
    old.ask("COMMIT").unwrap();
    let sleeps = old.send("SELECT pg_sleep(3600)");
    until("the statement is cancelled", || {
        old.cancel();
        !sleeps.is_waiting()
    });
    fails("pg_sleep", sleeps.answer(), "57014");
    let first = Pid::from_raw(first_pid.try_into().unwrap()).unwrap();
    assert!(rustix::process::test_kill_process(first).is_ok(), "the first process has ended");
    drop(old);
    let state = std::path::PathBuf::from(format!("/proc/{first_pid}/stat"));
    until("the first process ends", || {
        // What has ended and is not yet waited for has the state Z.
        std::fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z "))
    });

    kill_process(Pid::from_child(&fourth.0), Signal::TERM).unwrap();
    until("the last process ends", || fourth.has_ended());
}
