//! Single rules, message by message: what the modelled world does not come to.

use wire::frame::push;

use super::super::{Conversation, Cut, FAILED, Heard, IDLE, OPEN, Out, ServerSide, Stop, WAIT};
use crate::in_doubt::Outcome;

struct Talk {
    talk: Conversation,
    pending: Vec<u8>,
    server: Vec<u8>,
    client: Vec<u8>,
    stop: Stop,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, tag, |bytes| bytes.extend_from_slice(body));
    out
}

/// What the messages of `bytes` are, by their tags.
fn tags(bytes: &[u8]) -> String {
    let mut rest = bytes;
    let mut tags = String::new();
    while let Ok(Some(frame)) = wire::frame::split(rest, usize::MAX) {
        tags.push(char::from(frame.tag));
        rest = &rest[frame.size()..];
    }
    assert!(rest.is_empty(), "a part of a message: {}", rest.escape_ascii());
    tags
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

impl Talk {
    /// With a server, and this transaction status.
    fn new(status: u8) -> Talk {
        let mut talk = Conversation::new(1000, true);
        talk.status = status;
        talk.server = Some(ServerSide {
            serial: 1,
            term: 3,
            timeline: 2,
            standby: false,
            ids_prepared: true,
            shared: None,
        });
        let (pending, server, client) = Default::default();
        Talk { talk, pending, server, client, stop: Stop::More }
    }

    /// Hears the client, and tells what was sent to the server.
    fn sends(&mut self, messages: &[(u8, &[u8])]) -> String {
        for (tag, body) in messages {
            self.pending.extend(message(*tag, body));
        }
        let mut out = Out { server: &mut self.server, client: &mut self.client };
        let (taken, stop) = self.talk.hear_client(&self.pending, &mut out);
        self.pending.drain(..taken);
        self.stop = stop;
        tags(&std::mem::take(&mut self.server))
    }

    fn query(&mut self, text: &str) -> String {
        self.sends(&[(b'Q', &[text.as_bytes(), b"\0"].concat())])
    }

    /// Hears the server, and tells what was sent to the client.
    fn answers(&mut self, messages: &[(u8, &[u8])]) -> String {
        self.answers_until(messages, &[Heard::More, Heard::Idle])
    }

    fn answers_until(&mut self, messages: &[(u8, &[u8])], ends: &[Heard]) -> String {
        let bytes = messages.iter().flat_map(|(tag, body)| message(*tag, body));
        let bytes: Vec<u8> = bytes.collect();
        let mut out = Out { server: &mut self.server, client: &mut self.client };
        let (_taken, heard) = self.talk.hear_server(&bytes, &mut out);
        assert!(ends.contains(&heard), "{heard:?}");
        tags(&std::mem::take(&mut self.client))
    }

    /// Answers the question for the id, which is the last that was sent.
    fn answers_id(&mut self, id: &str) -> String {
        let mut row = vec![0, 2, 0, 0, 0, u8::try_from(id.len()).unwrap()];
        row.extend_from_slice(id.as_bytes());
        row.extend_from_slice(&[0xff; 4]);
        let shown = self.answers(&[(b'2', b""), (b'D', &row), (b'C', b"SELECT 1\0")]);
        assert_eq!(shown, "");
        tags(&std::mem::take(&mut self.server))
    }

    fn cut(&mut self) -> Cut {
        let mut out = Out { server: &mut self.server, client: &mut self.client };
        self.talk.cut_off(&mut self.pending, &mut out)
    }

    fn judged(&mut self, outcome: Outcome) -> Cut {
        let mut out = Out { server: &mut self.server, client: &mut self.client };
        self.talk.judged(outcome, &mut self.pending, &mut out)
    }
}

const INSERT: &str = "insert into t values (1)";
const INSERTED: [(u8, &[u8]); 4] = [(b'1', b""), (b'2', b""), (b'n', b""), (b'C', b"INSERT 0 1\0")];

fn cancelled() -> Vec<u8> {
    format!("SWARNING\0VWARNING\0C01000\0Mcanceling\0R{WAIT}\0\0").into_bytes()
}

#[test]
fn a_write_is_sent_without_its_end_until_its_id_is_known() {
    let mut it = Talk::new(IDLE);
    assert_eq!(it.query(INSERT), "PBDEBEH");
    assert_eq!(it.query("select 1"), "", "nothing passes the gate");
    assert_eq!(it.answers(&INSERTED), "");
    assert_eq!(it.answers_id("77"), "S");
    assert!(it.talk.is_committing());
    let Cut::Doubt(doubt) = it.cut() else { panic!("no doubt") };
    assert_eq!((doubt.xid, doubt.term, doubt.timeline), (77, 3, 2));
    assert_eq!(it.judged(Outcome::Committed), Cut::Settled);
    assert_eq!(tags(&it.client), "CZ");
    assert!(has(&it.client, "INSERT 0 1"));
    assert!(has(&it.pending, "select 1"));
}

#[test]
fn a_commit_whose_wait_was_cancelled_is_not_acknowledged() {
    let mut it = Talk::new(IDLE);
    it.query(INSERT);
    it.answers(&INSERTED);
    assert_eq!(it.answers_id("77"), "S");
    assert_eq!(it.answers(&[(b'N', &cancelled()), (b'Z', b"I")]), "EZ");

    let mut it = Talk::new(OPEN);
    it.query(INSERT);
    assert_eq!(it.answers(&[(b'C', b"INSERT 0 1\0"), (b'Z', b"T")]), "CZ");
    assert_eq!(it.query("commit"), "BEH");
    assert_eq!(it.answers_id("77"), "Q");
    let end: [(u8, &[u8]); 3] = [(b'N', &cancelled()), (b'C', b"COMMIT\0"), (b'Z', b"I")];
    assert_eq!(it.answers(&end), "EZ");

    // It is not gated: a procedure. Its answer comes behind the warning.
    let mut it = Talk::new(IDLE);
    assert_eq!(it.query("call p()"), "Q");
    let end: [(u8, &[u8]); 3] = [(b'N', &cancelled()), (b'C', b"CALL\0"), (b'Z', b"I")];
    assert_eq!(it.answers_until(&end, &[Heard::LookAtSession]), "E");
}

#[test]
fn a_cancelled_wait_of_what_outlived_the_failover_is_a_commit() {
    let mut it = Talk::new(OPEN);
    it.talk.tx_writes = true;
    it.query("commit");
    it.answers_id("77");
    assert_eq!(it.answers(&[(b'N', &cancelled()), (b'C', b"COMMIT\0")]), "");
    assert!(matches!(it.cut(), Cut::Doubt(_)));
    it.judged(Outcome::Committed);
    assert_eq!(tags(&it.client), "CZ");
}

#[test]
fn a_commit_that_fails_at_its_gate_is_not_answered_with_rollback() {
    let mut it = Talk::new(OPEN);
    it.talk.tx_writes = true;
    assert_eq!(it.query("commit"), "BEH");
    let error = b"SERROR\0VERROR\0C57014\0Mcanceling\0\0";
    assert_eq!(it.answers(&[(b'E', error)]), "");
    assert_eq!(tags(&std::mem::take(&mut it.server)), "SQ");
    let end: [(u8, &[u8]); 3] = [(b'Z', b"E"), (b'C', b"ROLLBACK\0"), (b'Z', b"I")];
    assert_eq!(it.answers(&end), "EZ");
    assert!(it.talk.is_quiet());
}

#[test]
fn an_end_that_was_bound_in_an_earlier_batch_is_not_known() {
    let mut it = Talk::new(OPEN);
    let bind: [(u8, &[u8]); 3] =
        [(b'P', b"c\0commit\0\0\0"), (b'B', b"p\0c\0\0\0\0\0\0\0"), (b'S', b"")];
    assert_eq!(it.sends(&bind), "PBS");
    assert_eq!(it.answers(&[(b'1', b""), (b'2', b""), (b'Z', b"T")]), "12Z");
    assert_eq!(it.sends(&[(b'E', b"p\0\0\0\0\0"), (b'S', b"")]), "ES");
    assert_eq!(it.cut(), Cut::Settled);
    assert!(has(&it.client, "08007"), "{}", it.client.escape_ascii());
}

#[test]
fn a_serializable_transaction_that_wrote_nothing_may_have_failed() {
    let mut it = Talk::new(IDLE);
    assert_eq!(it.query("begin isolation level serializable"), "Q");
    assert_eq!(it.answers(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]), "CZ");
    assert_eq!(it.query("commit"), "BEH");
    let mut row = vec![0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 12];
    row.extend_from_slice(b"serializable");
    it.answers(&[(b'2', b""), (b'D', &row), (b'C', b"SELECT 1\0")]);
    assert_eq!(it.cut(), Cut::Settled);
    assert!(has(&it.client, "40001") && !has(&it.client, "COMMIT"));
}

#[test]
fn a_good_bye_waits_for_what_was_asked_before() {
    let mut it = Talk::new(IDLE);
    it.query(INSERT);
    assert_eq!(it.sends(&[(b'X', b"")]), "");
    assert_eq!(it.stop, Stop::Wait);
    it.answers(&INSERTED);
    assert_eq!(it.answers_id("77"), "S");
    assert_eq!(it.sends(&[]), "");
    assert_eq!(it.stop, Stop::Wait);
    assert_eq!(it.answers(&[(b'Z', b"I")]), "CZ");
    it.sends(&[]);
    assert_eq!(it.stop, Stop::Terminate);
}

#[test]
fn a_server_that_ends_the_session_has_not_acknowledged_what_is_held() {
    let mut it = Talk::new(IDLE);
    it.query(INSERT);
    it.answers(&INSERTED);
    let fatal = b"SFATAL\0VFATAL\0C57P05\0Midle\0\0";
    assert_eq!(it.answers_until(&[(b'E', fatal)], &[Heard::SessionEnds]), "E");
}

#[test]
fn a_text_that_cannot_be_read_is_taken_for_anything() {
    let mut it = Talk::new(IDLE);
    assert_eq!(it.answers(&[(b'S', b"client_encoding\0SJIS\0")]), "S");
    assert_eq!(it.sends(&[(b'Q', b"select '\x83\x5c'; commit\0")]), "Q");
    assert_eq!(it.cut(), Cut::Settled);
    assert!(has(&it.client, "08007"));

    // A COPY that was not seen: the server passes over the Sync behind it.
    let mut it = Talk::new(IDLE);
    it.talk.readable = false;
    let copy: [(u8, &[u8]); 4] =
        [(b'P', b"\0copy \x83 from stdin\0\0\0"), (b'B', &[0; 8]), (b'E', &[0; 5]), (b'S', b"")];
    assert_eq!(it.sends(&copy), "PBES");
    assert_eq!(it.answers(&[(b'1', b""), (b'2', b""), (b'G', &[0; 3])]), "12G");
    assert_eq!(it.sends(&[(b'd', b"1\n"), (b'c', b""), (b'S', b"")]), "dcS");
    let end = it.answers_until(&[(b'C', b"COPY 1\0"), (b'Z', b"I")], &[Heard::LookAtSession]);
    assert_eq!(end, "C");
    assert!(it.talk.expected.is_empty() && it.talk.batches.is_empty());
}

#[test]
fn replies_that_a_flush_asked_for_are_not_held_by_what_follows() {
    let mut it = Talk::new(IDLE);
    let first: [(u8, &[u8]); 4] = [
        (b'P', b"i\0insert into t values (1)\0\0\0"),
        (b'B', b"\0i\0\0\0\0\0\0\0"),
        (b'E', &[0; 5]),
        (b'H', b""),
    ];
    it.sends(&first);
    it.sends(&[(b'B', b"\0i\0\0\0\0\0\0\0"), (b'E', &[0; 5])]);
    assert_eq!(it.answers(&[(b'1', b""), (b'2', b""), (b'C', b"INSERT 0 1\0")]), "12C");

    // Some of them may have been here before it.
    let mut it = Talk::new(IDLE);
    it.sends(&first[..3]);
    assert_eq!(it.answers(&[(b'1', b""), (b'2', b"")]), "");
    it.sends(&first[3..]);
    assert_eq!(tags(&it.client), "12");
}

#[test]
fn the_rest_of_a_message_that_is_not_passed_on_is_not_read() {
    // What stands behind the part that is looked at is itself like a message.
    let inner = message(b'Q', b"drop table t\0");
    let mut text = b"set synchronous_commit = off /*".to_vec();
    text.resize(1000, b'x');
    text.extend(inner);
    text.extend_from_slice(b"*/\0");
    let whole = message(b'Q', &text);
    let mut it = Talk::new(IDLE);
    it.pending = whole[..1005].to_vec();
    assert_eq!(it.sends(&[]), "Q");
    assert!(it.pending.is_empty());
    it.pending.extend_from_slice(&whole[1005..]);
    assert_eq!(it.sends(&[]), "");
    assert!(it.pending.is_empty());
}

#[test]
fn nothing_new_stands_in_the_transactions_that_only_read() {
    let mut it = Talk::new(IDLE);
    assert_eq!(it.query("select f(1)"), "Q");
    assert_eq!(it.cut(), Cut::Settled);
    assert!(it.talk.needs_guard() && has(&it.pending, "select f(1)"));
    it.talk.server = Talk::new(IDLE).talk.server;
    assert_eq!(it.query("select 2"), "Q", "the repeated one alone");
    assert_eq!(it.stop, Stop::Wait);
    let end: [(u8, &[u8]); 2] = [(b'C', b"SELECT 1\0"), (b'Z', b"I")];
    assert_eq!(it.answers_until(&end, &[Heard::LookAtSession]), "C");
    assert!(it.talk.guard_ended());
    it.talk.release(&mut it.client);
    assert!(!it.talk.needs_guard() && it.sends(&[]) == "Q");
}

#[test]
fn a_portal_that_takes_data_and_is_not_executed_does_not_hold_the_sync() {
    let mut it = Talk::new(IDLE);
    let bound: [(u8, &[u8]); 3] =
        [(b'P', b"\0copy t from stdin\0\0\0"), (b'B', &[0; 8]), (b'S', b"")];
    assert_eq!(it.sends(&bound), "PBBEH");
}

/// A Parse, and a Bind of the unnamed portal.
fn parse(name: &str, text: &str) -> (u8, Vec<u8>) {
    (b'P', format!("{name}\0{text}\0\0\0").into_bytes())
}

fn bind(name: &str) -> (u8, Vec<u8>) {
    (b'B', [b"\0", name.as_bytes(), &[0; 7]].concat())
}

const EXECUTE: (u8, &[u8]) = (b'E', &[0; 5]);
const SYNC: (u8, &[u8]) = (b'S', b"");

impl Talk {
    fn executes(&mut self, statements: &[(&str, &str)]) -> String {
        let mut sent = String::new();
        for (name, text) in statements {
            let (parse, bind) = (parse(name, text), bind(name));
            sent += &self.sends(&[(parse.0, &parse.1), (bind.0, &bind.1), EXECUTE]);
        }
        sent
    }

    fn is_cut_with(&mut self, sqlstate: &str) {
        assert_eq!(self.cut(), Cut::Settled);
        assert!(has(&self.client, sqlstate), "{}", self.client.escape_ascii());
    }

    fn gets_another_server(&mut self) {
        self.talk.server = Talk::new(IDLE).talk.server;
        if let Some(side) = &mut self.talk.server {
            side.serial = 2;
        }
    }
}

#[test]
fn what_may_mend_a_transaction_is_waited_for_and_not_repeated() {
    let mut it = Talk::new(FAILED);
    assert_eq!(it.query("rollback to s"), "Q");
    assert_eq!(it.query(INSERT), "");
    assert_eq!(it.stop, Stop::Wait);
    it.is_cut_with("40001");
    assert!(!has(&it.pending, "rollback"));
}

#[test]
fn what_follows_the_end_of_a_transaction_is_in_another() {
    let mut it = Talk::new(OPEN);
    let (commit, insert) = (parse("c", "commit"), parse("i", INSERT));
    it.sends(&[(commit.0, &commit.1), (insert.0, &insert.1), SYNC]);
    it.answers(&[(b'1', b""), (b'1', b""), (b'Z', b"T")]);
    it.talk.tx_writes = true;
    let (commit, insert) = (bind("c"), bind("i"));
    let all = [(commit.0, &commit.1[..]), EXECUTE, (insert.0, &insert.1), EXECUTE, SYNC];
    assert_eq!(it.sends(&all), "BEH");
    assert_eq!(it.answers_id("77"), "B");
    assert_eq!(it.sends(&[]), "EBES");
    it.is_cut_with("08007");

    // Also when it is only made there.
    let mut it = Talk::new(OPEN);
    it.executes(&[("c", "commit")]);
    let insert = parse("i", INSERT);
    assert_eq!(it.sends(&[(insert.0, &insert.1)]), "P");
    it.is_cut_with("08007");
}

#[test]
fn a_statement_that_is_not_known_may_end_the_transaction() {
    let mut it = Talk::new(OPEN);
    let unknown = bind("x");
    assert_eq!(it.sends(&[(unknown.0, &unknown.1), EXECUTE, SYNC]), "BES");
    it.is_cut_with("08007");
}

#[test]
fn a_commit_that_was_bound_and_not_asked_for_has_not_happened() {
    let mut it = Talk::new(OPEN);
    it.executes(&[("s", "select 1")]);
    let (parse, bind) = (parse("c", "commit"), bind("c"));
    assert_eq!(it.sends(&[(parse.0, &parse.1), (bind.0, &bind.1)]), "PB");
    it.is_cut_with("40001");
    assert!(!has(&it.client, "COMMIT"));
}

#[test]
fn the_question_for_the_id_is_made_anew_behind_a_deallocate() {
    let mut it = Talk::new(IDLE);
    it.executes(&[("", "deallocate all"), ("", INSERT)]);
    assert_eq!(it.sends(&[SYNC]), "CCPPBEH");
}

#[test]
fn a_function_beside_a_setting_is_not_called_again() {
    let mut it = Talk::new(IDLE);
    it.executes(&[("", "select f(1)"), ("", "set x.y to 1")]);
    it.sends(&[SYNC]);
    it.is_cut_with("08007");
    assert!(it.pending.is_empty());
}

#[test]
fn an_end_that_was_executed_leaves_nothing_open() {
    let mut it = Talk::new(OPEN);
    it.executes(&[("c", "commit and chain")]);
    it.sends(&[SYNC]);
    let end: [(u8, &[u8]); 4] = [(b'1', b""), (b'2', b""), (b'C', b"COMMIT\0"), (b'Z', b"T")];
    assert_eq!(it.answers(&end), "12CZ");
    it.sends(&[(b'E', b"p\0\0\0\0\0"), SYNC]);
    it.is_cut_with("40001");
}

#[test]
fn a_simple_query_that_was_passed_over_has_no_end_of_its_own() {
    let mut it = Talk::new(IDLE);
    let broken = parse("", "select (");
    assert_eq!(it.sends(&[(broken.0, &broken.1), (b'Q', b"select 1\0")]), "PQ");
    assert_eq!(it.answers(&[(b'E', b"SERROR\0VERROR\0C42601\0Msyntax\0\0")]), "E");
    assert_eq!(it.sends(&[SYNC]), "S");
    let end = it.answers_until(&[(b'Z', b"I")], &[Heard::Idle, Heard::LookAtSession]);
    assert_eq!(end, "Z");
    assert!(it.talk.is_quiet());
}

#[test]
fn a_repeated_parse_is_refused_as_the_one_that_it_is() {
    let mut it = Talk::new(IDLE);
    let (select, insert) = (parse("a", "select 1"), parse("a", INSERT));
    it.sends(&[(select.0, &select.1), SYNC]);
    assert_eq!(it.cut(), Cut::Settled);
    it.gets_another_server();
    assert_eq!(it.sends(&[(insert.0, &insert.1), SYNC]), "PSPS");
    let error = b"SERROR\0VERROR\0C42P05\0Mit exists\0\0";
    let end: [(u8, &[u8]); 4] = [(b'1', b""), (b'Z', b"I"), (b'E', error), (b'Z', b"I")];
    assert_eq!(it.answers(&end), "1ZEZ");
    let bind = bind("a");
    assert_eq!(it.sends(&[(bind.0, &bind.1), EXECUTE, SYNC]), "BES", "it reads");
}

#[test]
fn a_parse_that_was_reported_failed_has_made_nothing() {
    let mut it = Talk::new(IDLE);
    let (select, unknown) = (parse("a", "select 1"), bind("x"));
    it.sends(&[(select.0, &select.1), (unknown.0, &unknown.1), EXECUTE, SYNC]);
    it.is_cut_with("08007");
    it.gets_another_server();
    let bind = bind("a");
    assert_eq!(it.sends(&[(bind.0, &bind.1), EXECUTE, SYNC]), "BES", "the server refuses it");
}

#[test]
fn lowering_synchronous_commit_is_refused_or_warned_of() {
    let set = message(b'Q', b"SET synchronous_commit = off\0");
    for (refuse, to_server, to_client) in [(true, "RAISE EXCEPTION", ""), (false, "= off", "N")] {
        let mut it = Talk::new(IDLE);
        it.talk.refuse_lowered = refuse;
        let mut out = Out { server: &mut it.server, client: &mut it.client };
        it.talk.hear_client(&set, &mut out);
        assert!(has(&it.server, to_server), "{}", it.server.escape_ascii());
        assert_eq!(tags(&it.client), to_client);
    }
}

/// COMMIT as libraries send a text of their own: parsed without a name, described, executed.
#[test]
fn a_commit_that_was_described_is_told_like_any_other() {
    for before in 0..=3 {
        let mut it = Talk::new(OPEN);
        it.talk.tx_writes = true;
        let (parse, bind) = (parse("", "commit"), bind(""));
        let batch: [(u8, &[u8]); 5] =
            [(parse.0, &parse.1), (b'D', b"S\0"), (bind.0, &bind.1), EXECUTE, SYNC];
        // However much of it has come before the rest.
        let described: [(u8, &[u8]); 3] = [(b'1', b""), (b't', b"\0\0"), (b'n', b"")];
        let mut seen = String::new();
        if before == 0 {
            assert_eq!(it.sends(&batch), "PDBEH");
        } else {
            assert_eq!(it.sends(&batch[..2]), "PD");
            seen = it.answers(&described[..before]);
            assert_eq!(it.sends(&batch[2..]), "BEH");
        }
        seen.push_str(&it.answers(&described[before..]));
        assert_eq!(it.answers_id("77"), "B");
        assert_eq!(it.sends(&[]), "ES");
        let Cut::Doubt(doubt) = it.cut() else { panic!("no doubt") };
        assert_eq!(doubt.xid, 77);
        assert_eq!(it.judged(Outcome::Committed), Cut::Settled);
        seen.push_str(&tags(&it.client));
        assert_eq!(seen, "1tn2CZ");
        assert!(has(&it.client, "COMMIT"));
    }
}
