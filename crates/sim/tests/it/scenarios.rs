//! Every file under `scenarios/` is played; what it says must be what happens.
//! `UPDATE_EXPECT=1 cargo test -p sim` writes the transcripts anew.

use std::path::{Path, PathBuf};

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(&folder).expect("there is a folder of scenarios");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut paths: Vec<PathBuf> = paths.filter(|it| it.extension().is_some()).collect();
    paths.sort();
    paths
}

#[test]
fn every_scenario_plays_as_it_is_written() {
    for path in scenarios() {
        let text = std::fs::read_to_string(&path).expect("the scenario can be read");
        let played = match sim::scenario::play(&text) {
            Ok(played) => played,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        assert!(!played.contains("| VIOLATED"), "{}:\n{played}", path.display());
        expect_test::expect_file![&path].assert_eq(&played);
    }
}

#[test]
fn the_same_scenario_always_plays_the_same() {
    let text = "create witness\nrun 4s\ncrash be1\nrun 5s\nrestart be1\nrun 5s\n";
    assert_eq!(sim::scenario::play(text), sim::scenario::play(text));
}
