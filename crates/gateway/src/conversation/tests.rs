//! A conversation between a modelled client and modelled servers that go away at any byte.
//!
//! Whatever happens, each batch is answered once, every row that was acknowledged is there once,
//! and none that was reported failed.

mod client;
mod model;
mod rules;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;

use client::{Group, Statement};
use world::World;

fn statement() -> impl Strategy<Value = Statement> {
    prop_oneof![
        3 => Just(Statement::Select),
        1 => Just(Statement::Calls),
        6 => Just(Statement::Insert),
        2 => Just(Statement::Returning),
        1 => Just(Statement::Nothing),
        1 => Just(Statement::Fails),
        4 => Just(Statement::Begin),
        4 => Just(Statement::Commit),
        1 => Just(Statement::Chain),
        2 => Just(Statement::Rollback),
        1 => Just(Statement::Savepoint),
        1 => Just(Statement::RollbackTo),
        1 => Just(Statement::Copy),
        1 => Just(Statement::Procedure),
        1 => Just(Statement::Set),
        1 => Just(Statement::Deallocate),
    ]
}

/// A COPY stands at the end, where its data do not meet other messages.
fn group(of: impl Strategy<Value = Statement>) -> impl Strategy<Value = Group> {
    (vec(of, 1..4), any::<[bool; 7]>(), 0_u8..24).prop_map(|(mut statements, flags, size)| {
        let [simple, waits, named, describes, flushes, eager, gives_up] = flags;
        if let Some(index) = statements.iter().position(|it| *it == Statement::Copy) {
            statements.truncate(index + 1);
        }
        Group {
            simple,
            waits,
            named,
            describes,
            flushes,
            eager,
            gives_up,
            large: size == 23,
            statements,
        }
    })
}

fn plain() -> impl Strategy<Value = Statement> {
    prop_oneof![
        3 => Just(Statement::Select),
        4 => Just(Statement::Insert),
        1 => Just(Statement::Returning),
        1 => Just(Statement::Nothing),
        1 => Just(Statement::Fails),
        1 => Just(Statement::Savepoint),
        1 => Just(Statement::RollbackTo),
        1 => Just(Statement::Copy),
    ]
}

/// What drivers send: one statement at a time, autocommitted or between BEGIN and its end.
fn common() -> impl Strategy<Value = Vec<Group>> {
    let one = |of: Statement| {
        group(Just(of)).prop_map(move |mut group| {
            group.statements.truncate(1);
            group
        })
    };
    let single = group(plain()).prop_map(|mut group| {
        group.statements.truncate(1);
        vec![group]
    });
    let end = prop_oneof![3 => Just(Statement::Commit), 1 => Just(Statement::Rollback)];
    let transaction =
        (one(Statement::Begin), vec(group(plain()), 0..4), end, group(Just(Statement::Begin)))
            .prop_map(|(begin, within, end, last)| {
                let mut groups = vec![begin];
                groups.extend(within.into_iter().map(|mut group| {
                    group.statements.truncate(1);
                    group
                }));
                groups.push(Group { statements: vec![end], ..last });
                groups
            });
    vec(prop_oneof![single, transaction], 1..5).prop_map(|groups| groups.concat())
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(1_500), failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_drivers_send_is_answered_truthfully(
        script in common(),
        choices in vec(any::<u8>(), 40..200),
        cuts in 0_usize..4,
    ) {
        World::new(script, choices, cuts).run();
    }

    #[test]
    fn any_sequence_is_answered_truthfully(
        script in vec(group(statement()), 1..10),
        choices in vec(any::<u8>(), 40..200),
        cuts in 0_usize..4,
    ) {
        World::new(script, choices, cuts).run();
    }

    #[test]
    fn what_is_refused_meanwhile_is_answered_truthfully(
        script in vec(group(statement()), 1..10),
        choices in vec(any::<u8>(), 40..200),
        cuts in 0_usize..4,
    ) {
        World::new(script, choices, cuts).refusing().run();
    }
}
