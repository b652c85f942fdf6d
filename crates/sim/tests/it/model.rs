//! The bounded model check of `make test`. `cargo xtask model --deep` goes on for as long as it is
//! let.

use sim::{Budget, Trace, model, replay};

#[test]
fn no_invariant_is_violated_within_the_budget() {
    let budget =
        Budget { seed: 1, states: 20_000, walks: 12_000, steps: 1_500, simulations: 1_500 };
    let report = model::run(budget);
    assert!(report.found.is_none(), "{report}\n{}", report.keep(&std::env::temp_dir()));
    assert_eq!(report.unseen(), [], "{report}");
}

#[test]
fn a_trace_replays_from_its_text() {
    let budget = Budget { seed: 3, states: 1, walks: 0, steps: 0, simulations: 0 };
    assert!(model::run(budget).found.is_none());
    let text = "world witness Free Mirrored 3\ntick be1\ndeliver be1 be2 0\nwrite be1\n";
    let trace: Trace = text.parse().expect("it is a trace");
    assert_eq!(trace.to_text(), text);
    let mut shown = Vec::new();
    replay(text, &mut |line| shown.push(line.to_owned())).expect("it can be replayed");
    assert_eq!(shown.last().map(String::as_str), Some("no invariant was violated"));
}
