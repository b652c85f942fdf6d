//! The repository is tidy: see `xtask::tidy` for the rules and for what to write instead.

#[test]
fn the_repository_is_tidy() {
    let violations = xtask::tidy::check(&xtask::root()).expect("the checks can run");
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} places are not tidy:\n{}", list.len(), list.join("\n"));
}
