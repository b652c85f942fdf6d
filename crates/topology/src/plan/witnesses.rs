//! Witnesses that come, go and are replaced. The mirror has nothing to do with it.

use super::view::Both;
use super::{Condition, Effect, Stage, Work};

pub(super) fn changed(work: &mut Work<'_>, both: &Both<'_>) {
    let (before, after) = (both.before.witness, both.after.witness);
    let name = both.name();
    if before == after {
        return spare(work, both);
    }
    let is_wanted = |witness: Option<&str>| Condition::Witness {
        pool: name.to_owned(),
        witness: witness.map(str::to_owned),
    };
    // Without a mirror there is nothing to witness: then it goes with the mirror.
    let is_mirrored = both.after.second.is_some();
    let unmirrored =
        work.facts.pools.get(name).is_some_and(|pool| pool.is_served && !pool.is_mirrored);
    let (stage, code, sentence) = match (before, after) {
        (None, Some(to)) => {
            (Stage::Protect, "witness_added", format!("{to} becomes the witness of {name}"))
        }
        (Some(from), Some(to)) => (
            Stage::Protect,
            "witness_replaced",
            format!("{to} becomes the witness of {name} in place of {from}"),
        ),
        (Some(from), None) => {
            (Stage::Reduce, "witness_removed", format!("{from} is the witness of {name} no more"))
        }
        (None, None) => return,
    };
    let change = work.add(stage, code, sentence);
    change.pool(name).effect(Effect::NoInterruption);
    change.of(both.after.members().chain(before));
    match (before, after) {
        (Some(_), None) if is_mirrored => {
            change.effect(Effect::NoAutomaticFailoverFromNowOn);
            change.remark("the mirror stays as it is: every commit is on both disks as before");
        }
        (Some(_), None) | (None, None) => {}
        (None, Some(_)) => {
            change.remark("from then on the pool fails over by itself");
        }
        (Some(_), Some(_)) => {
            change
                .remark("the old one votes until the new one does: no moment is without a witness");
        }
    }
    if unmirrored && is_mirrored {
        change.effect(Effect::NoAutomaticFailoverMeanwhile);
        change.remark("a witness is changed only while the pool is mirrored: it waits until then");
    }
    change.done_when(is_wanted(after));
}

fn spare(work: &mut Work<'_>, both: &Both<'_>) {
    let names = |view: &super::view::PoolView<'_>| {
        let spare = view.pool.spare_witnesses.iter().flatten();
        spare.map(|name| name.value.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    if names(&both.before) == names(&both.after) {
        return;
    }
    let name = both.name();
    let sentence = format!("the spare witnesses of {name} change");
    let change = work.add(Stage::Adjust, "spare_witnesses", sentence);
    change.pool(name).effect(Effect::NoInterruption).of(both.after.members());
}
