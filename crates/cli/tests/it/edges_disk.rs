//! Clean edges of disks: volumes that are full, and copies that went back in time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::Place;
use crate::stage::Demo;
use crate::writer::{self, Writer};

/// A small volume, mounted on `dir` for as long as this lives.
struct Volume {
    dir: PathBuf,
}

impl Volume {
    fn mount(dir: &Path) -> Volume {
        fs::create_dir_all(dir).unwrap();
        let out = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=320m,mode=0755", "backstay-test"])
            .arg(dir)
            .output()
            .unwrap();
        let why = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "this test mounts small volumes, so it needs root: {why}");
        Volume { dir: dir.to_owned() }
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).unwrap();
        let zeros = std::io::repeat(0);
        let full = std::io::copy(&mut std::io::Read::take(zeros, 1 << 30), &mut file);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
        // The test's directory could not be removed while this was there.
        if let Some(place) = self.dir.ancestors().nth(3) {
            let _ = fs::remove_dir_all(place);
        }
    }
}

/// Ten megabytes of WAL, and nothing in tables.
fn write_wal(uri: &str) -> Result<(), String> {
    writer::run(uri, "SELECT pg_logical_emit_message(true, 'edges', repeat('x', 10000000))")
}

fn has_alarm(pool: &serde_json::Value, code: &str, text: &str) -> bool {
    let alarms = pool["alarms"].as_array().unwrap();
    alarms.iter().any(|alarm| {
        alarm["code"] == code && alarm["sentence"].as_str().is_some_and(|s| s.contains(text))
    })
}

#[test]
fn a_full_volume_raises_an_alarm_costs_no_row_and_heals_when_there_is_room() {
    let place = Place::new("edges-full");
    let home = |name: &str| place.path().join("demo").join(name).join("postgres");
    let volumes = ["be1", "be2"].map(|name| Volume::mount(&home(name)));
    let demo = Demo::start_in(place, &[]);
    demo.wait_until_armed();
    let uri = demo.status()["connection"]["uri"].as_str().unwrap().to_owned();
    let writer = Writer::start(&uri, 1);
    writer.goes_on();

    let [be1, be2] = &volumes;
    be1.fill();
    demo.wait("an alarm", |pool| has_alarm(pool, "storage_full", "free some space"));
    // PostgreSQL crashes when it cannot make WAL, and the mirror takes over.
    while write_wal(&uri).is_ok() && demo.pool()["principal"] == "be1" {}
    demo.wait("be2 serves", |pool| pool["principal"] == "be2" && pool["state"] != "not_served");
    writer.goes_on();
    be1.free();
    demo.wait_until_armed();
    demo.wait("no alarm", |pool| !has_alarm(pool, "storage_full", ""));

    be1.fill();
    while demo.pool()["state"] == "mirrored" {
        write_wal(&uri).unwrap();
    }
    demo.wait("exposed", |pool| pool["state"] == "exposed" && pool["principal"] == "be2");
    writer.goes_on();
    be1.free();
    demo.wait_until_armed();
    writer::all_there(&uri, &writer.finish());
    demo.demo("stop", &[]).expect(0);
    let _ = be2;
}

/// Why nobody serves.
fn says_why(pool: &serde_json::Value, text: &str) -> bool {
    let sentence = pool["automatic_failover"]["sentence"].as_str().unwrap();
    pool["state"] == "not_served" && sentence.contains(text)
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn an_old_backup_in_the_place_of_a_partner_loses_nothing() {
    let demo = Demo::start("edges-backup", &[]);
    demo.wait_until_armed();
    let uri = demo.status()["connection"]["uri"].as_str().unwrap().to_owned();
    let home = |name: &str| demo.place.path().join("demo").join(name);
    let kept = |name: &str| demo.place.path().join(format!("{name}.backup"));
    demo.demo("stop", &[]).expect(0);
    for name in ["be1", "be2"] {
        copy(&home(name), &kept(name));
    }
    demo.start_again(&[]);
    demo.wait_until_armed();

    // The mirror: data and state.
    let writer = Writer::start(&uri, 1);
    writer.goes_on();
    demo.demo("kill", &["be2"]).expect(0);
    writer.goes_on();
    copy(&kept("be2"), &home("be2"));
    demo.demo("restart", &["be2"]).expect(0);
    demo.wait_until_armed();
    writer.goes_on();
    let mut acknowledged = writer.finish();
    writer::all_there(&uri, &acknowledged);

    // The principal's data, while nobody runs: the newer copy wins.
    assert_eq!(demo.wait_until_armed()["principal"], "be1");
    demo.demo("stop", &[]).expect(0);
    let data = |of: &Path| of.join("postgres/data");
    copy(&data(&kept("be1")), &data(&home("be1")));
    demo.start_again(&[]);
    assert_eq!(demo.wait_until_armed()["principal"], "be2");
    writer::all_there(&uri, &acknowledged);

    // The only complete copy: nobody serves until the operator has decided.
    demo.demo("kill", &["be1"]).expect(0);
    let writer = Writer::start(&uri, 1_000_000);
    writer.goes_on();
    acknowledged.extend(writer.finish());
    demo.demo("kill", &["be2"]).expect(0);
    let newest = demo.place.path().join("newest");
    fs::rename(data(&home("be2")), &newest).unwrap();
    demo.demo("restart", &["be2"]).expect(0);
    demo.wait("its data are missed", |pool| says_why(pool, "kept from running: there is no data"));
    demo.demo("kill", &["be2"]).expect(0);
    copy(&data(&kept("be2")), &data(&home("be2")));
    for name in ["be2", "be1"] {
        demo.demo("restart", &[name]).expect(0);
    }
    let pool = demo.wait("an alarm", |pool| has_alarm(pool, "data_behind", "an old backup"));
    assert_eq!(pool["state"], "not_served");
    assert!(says_why(&pool, "put its newest data back"), "{pool:#}");
    demo.demo("kill", &["be2"]).expect(0);
    copy(&newest, &data(&home("be2")));
    demo.demo("restart", &["be2"]).expect(0);
    demo.wait("be2 is back", |pool| {
        let members = pool["members"].as_array().unwrap();
        members
            .iter()
            .any(|one| one["name"] == "be2" && one["session"]["postgres"]["state"] == "standby")
    });
    let force = ["pool", "force-service", "pool01", "--to", "be2", "--accept-data-loss"];
    demo.run(&force).expect(0);
    demo.wait("be2 serves", |pool| pool["principal"] == "be2" && pool["state"] != "not_served");
    writer::all_there(&uri, &acknowledged);
    demo.wait_until_armed();
    writer::all_there(&uri, &acknowledged);
}
