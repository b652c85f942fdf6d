//! What a client session waits for between two turns: a server, the outcome of a commit, the truth
//! about itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Client;
use crate::conversation::{Cut, Out, Stop};
use crate::counters::End;
use crate::exchange::{Answer, ExchangeError, Server};
use crate::house::{Greetings, House};
use crate::in_doubt::{self, Doubt, Judgement, Outcome, Reading};
use crate::login::farewell;
use crate::refusal::{self, Refusal};
use crate::registry::CancelTarget;
use crate::restore::{Kept, literal, question};
use crate::route::Lease;
use crate::servers::{Held, Key, NoServer};

/// How long the last words to a client may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// From one question about a transaction that has not ended to the next.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How often a server may fail while a client session is made again on it.
const ATTEMPTS: u32 = 5;
/// SQL that fails, inside a transaction: the next server's session is then as the last one was.
const FAIL: &str = "SELECT 1/0";

impl Client {
    /// Welcomes the client. What a server would tell it is known from an earlier client of its
    /// kind, or asked of a server.
    pub(super) async fn greet(&mut self) -> Result<(), End> {
        let house = Rc::clone(&self.house);
        let known = house.greetings.borrow().get(&self.key).cloned();
        if let Some(parameters) = known {
            self.push_greeting(&parameters);
            return Ok(());
        }
        match house.servers.get(&house, &self.key, &self.credentials, true).await {
            Ok(held) => {
                let parameters = Rc::new(held.server.parameters.clone());
                remember(&house.greetings, &self.key, &parameters);
                self.push_greeting(&parameters);
                if held.server.side.standby || held.server.special {
                    return self.attach(held).await;
                }
                house.servers.keep(Rc::clone(&self.key), held);
                Ok(())
            }
            Err(NoServer::Passed(report)) => {
                if report.sqlstate() == "28P01" {
                    house.door.verifiers.doubt(&self.key.user);
                }
                report.push(&mut self.to_client);
                Err(End::ByServer)
            }
            Err(NoServer::Refused(refused)) if refused == &refusal::NOT_LET_IN => {
                house.door.verifiers.doubt(&self.key.user);
                refused.push(&mut self.to_client);
                Err(End::ByServer)
            }
            Err(NoServer::Refused(_)) => {
                refusal::LOG_IN_NO_PRINCIPAL.push(&mut self.to_client);
                Err(End::HeldInVain)
            }
        }
    }

    /// A batch begins, and there is no server for it.
    pub(super) async fn find_server(&mut self, reads: bool) -> Result<(), End> {
        let pinned = self.server.as_ref().and(self.kept.lost_with_server);
        if self.talk.hold && pinned.is_some() {
            return self.wait_in_place().await;
        }
        if pinned.is_none() {
            self.detach();
        }
        self.note_busy();
        let house = Rc::clone(&self.house);
        if pinned.is_none()
            && let Some(held) = house.servers.at_once(&house, &self.key)
        {
            return self.attach(held).await;
        }
        let found = tokio::select! {
            found = house.servers.get(&house, &self.key, &self.credentials, reads) => found,
            () = self.seat.cancelled.notified() => Err(NoServer::Refused(&refusal::CANCELLED)),
        };
        match (found, pinned) {
            // What it had on the standby is not on the principal.
            (Ok(_), Some(reason)) => self.end(reason),
            (Ok(_), None) if self.client_has_left().await => Err(End::Lost),
            (Ok(held), None) => self.attach(held).await,
            (Err(NoServer::Passed(report)), _) => {
                if report.sqlstate() == "28P01" {
                    house.door.verifiers.doubt(&self.key.user);
                }
                report.push(&mut self.to_client);
                Err(End::ByServer)
            }
            (Err(NoServer::Refused(refused)), _) if refused.is_fatal() => {
                house.door.verifiers.doubt(&self.key.user);
                self.end(refused)
            }
            (Err(NoServer::Refused(refused)), _) => self.refuse_statement(refused),
        }
    }

    /// Answers the statement that waits with an error.
    fn refuse_statement(&mut self, refused: &'static Refusal) -> Result<(), End> {
        let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
        let taken = self.talk.refuse_next(&self.pending, refused, &mut out);
        self.pending.drain(..taken);
        // A statement that is too large to be held whole cannot be passed over.
        if taken == 0 { self.end(&refusal::ANSWER_LOST) } else { Ok(()) }
    }

    /// The client has gone while its statement waited: nobody wants it executed any more.
    async fn client_has_left(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)));
        match read.await {
            Poll::Pending => false,
            Poll::Ready(Err(_)) => true,
            Poll::Ready(Ok(())) => {
                self.pending.extend_from_slice(buffer.filled());
                buffer.filled().is_empty()
            }
        }
    }

    /// The principal hands over, and this client session cannot be taken along: it waits to see
    /// whether the principal stays.
    async fn wait_in_place(&mut self) -> Result<(), End> {
        let house = Rc::clone(&self.house);
        let deadline = Instant::now() + house.config.file.times.hold();
        self.note_busy();
        while Instant::now() < deadline {
            let changed = house.pool.changed();
            Box::pin(self.route_changed()).await?;
            if !self.talk.hold || self.server.is_none() {
                return Ok(());
            }
            let _in_time = timeout_at(deadline, changed).await;
        }
        self.refuse_statement(&refusal::NO_PRINCIPAL)
    }

    /// The server is given up, and closed.
    fn detach(&mut self) {
        self.restored += u64::from(self.server.take().is_some());
        self.with_server = None;
        self.talk.server = None;
        self.talk.hold = false;
        self.to_server.clear();
        self.seat.target.take();
    }

    /// Makes a server this client session's own.
    async fn attach(&mut self, mut held: Held) -> Result<(), End> {
        let limit = self.house.config.file.times.connect();
        let restored = match timeout(limit, self.restore(&mut held.server)).await {
            Ok(Ok(restored)) => restored,
            // It is gone again, or busy with something: the next turn finds another.
            Ok(Err(_)) | Err(_) if self.attempts < ATTEMPTS => {
                self.attempts += 1;
                return Ok(());
            }
            Ok(Err(_)) | Err(_) => Err(&refusal::NOT_RESTORED),
        };
        if let Err(refused) = restored {
            return self.end(refused);
        }
        self.attempts = 0;
        if std::mem::take(&mut self.restored) > 0 {
            self.house.counters.sessions_restored.add();
        }
        if self.talk.needs_failed_transaction() {
            self.talk.has_failed_transaction();
        }
        let server = &held.server;
        for (name, value) in &server.parameters {
            if self.told.get(name) != Some(value) {
                wire::server::push_parameter_status(&mut self.to_client, name, value);
            }
        }
        if self.told.as_ref() != &server.parameters {
            let known = self.house.greetings.borrow().get(&self.key).cloned();
            let same = known.filter(|known| known.as_ref() == &server.parameters);
            self.told = same.unwrap_or_else(|| Rc::new(server.parameters.clone()));
        }
        self.learn_how_to_read(&server.parameters);
        let own = self.kept.setting("synchronous_commit");
        if server.lowered && own.is_none() && !self.talk.warned {
            self.talk.warn(&mut self.to_client);
        }
        *self.seat.target.borrow_mut() = Some(CancelTarget {
            member: server.member.clone(),
            host: server.host.clone(),
            port: server.port,
            process: server.process,
            key: server.key.clone(),
        });
        if server.side.standby {
            self.house.counters.standby_reads.add();
        }
        self.talk.server = Some(server.side.clone());
        self.with_server = Some(self.house.counters.with_server.enter());
        self.server = Some(held);
        self.generation = self.generation.wrapping_sub(1);
        Ok(())
    }

    /// Makes a new server's session what this one is.
    async fn restore(
        &mut self,
        server: &mut Server,
    ) -> Result<Result<(), &'static Refusal>, ExchangeError> {
        if !self.kept.is_plain() {
            let answer = server.ask(&self.kept.statements(server.side.standby)).await?;
            if let Some((sqlstate, message)) = answer.error {
                tracing::warn!(sqlstate, message, "a client session could not be restored");
                return Ok(Err(&refusal::NOT_RESTORED));
            }
            if self.kept.listens() && self.restored > 0 {
                refusal::NOTIFICATIONS_LOST.push_notice(&mut self.to_client);
            }
        }
        if self.talk.needs_failed_transaction() {
            let answer = server.ask("BEGIN").await?;
            let failed = server.ask(FAIL).await?;
            if answer.error.is_some() || failed.status != b'E' {
                return Ok(Err(&refusal::NOT_RESTORED));
            }
        } else if self.talk.needs_guard() {
            server.order("SET default_transaction_read_only = on").await?;
            server.parameters.remove("default_transaction_read_only");
        }
        Ok(Ok(()))
    }

    /// The server is gone: what it had not answered is repeated, judged, or told.
    pub(super) async fn recover(&mut self) -> Result<(), End> {
        self.server = None;
        self.with_server = None;
        self.seat.target.take();
        self.stop = Stop::More;
        self.to_server.clear();
        self.restored += 1;
        let before = self.talk.repeated;
        let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
        let mut cut = self.talk.cut_off(&mut self.pending, &mut out);
        let mut found = None;
        if let Cut::Doubt(doubt) = cut {
            let (outcome, server) = self.find_out(doubt).await;
            found = server;
            self.house.counters.in_doubt(outcome);
            let mut out = Out { server: &mut self.to_server, client: &mut self.to_client };
            cut = self.talk.judged(outcome, &mut self.pending, &mut out);
        }
        for _ in before..self.talk.repeated {
            self.house.counters.repeated.add();
        }
        for _ in 0..std::mem::take(&mut self.talk.cut_transactions) {
            self.house.counters.cut_off.add();
        }
        self.note_busy();
        if cut == Cut::Close {
            return Err(End::Unrestorable);
        }
        if let Some(refused) = self.kept.lost_with_server {
            return self.end(refused);
        }
        if self.talk.statements.overflow {
            return self.end(&refusal::TOO_MANY_STATEMENTS);
        }
        match cut {
            Cut::Settled | Cut::Doubt(_) => match found {
                Some(held) => self.attach(held).await,
                None => Ok(()),
            },
            Cut::End(refused) => self.end(refused),
            Cut::Close => Err(End::Unrestorable),
        }
    }

    /// Whether a transaction was committed; and the server that knew.
    async fn find_out(&mut self, doubt: Doubt) -> (Outcome, Option<Held>) {
        let house = Rc::clone(&self.house);
        let deadline = Instant::now() + house.config.file.times.hold();
        while Instant::now() < deadline {
            let got = house.servers.get_for_doubt(&house, &self.key, &self.credentials).await;
            let mut held = match got {
                Ok(held) => held,
                Err(_) => return (Outcome::Unknown, None),
            };
            let snapshot = house.pool.current();
            let Some(principal) = &snapshot.principal else {
                continue;
            };
            if principal.term != held.server.side.term {
                continue;
            }
            let outcome = match in_doubt::judge(doubt, principal) {
                Judgement::Lost => Outcome::NotCommitted,
                Judgement::Unknown => Outcome::Unknown,
                judgement @ (Judgement::Ask | Judgement::AskThenCommit) => {
                    let term = held.server.side.term;
                    let asked = ask_status(&mut held.server, doubt, judgement);
                    match timeout_at(deadline, while_served(&house, Some(term), asked)).await {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(_)) => continue,
                        Err(_) => Outcome::Unknown,
                    }
                }
            };
            // What a server said counts only if it still served when it said so.
            match self.still_serves(held.server.side.term, deadline).await {
                true => return (outcome, Some(held)),
                false => continue,
            }
        }
        (Outcome::Unknown, None)
    }

    /// Whether the principal of `term` serves, as far as its lease tells.
    async fn still_serves(&self, term: u64, deadline: Instant) -> bool {
        loop {
            let changed = self.house.pool.changed();
            match self.house.pool.lease(term) {
                Lease::Valid => return true,
                Lease::Over => return false,
                Lease::Expired => {}
            }
            if timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }

    /// Asks the server what the client session now is, before the client is told that the batch
    /// which may have changed it has ended.
    pub(super) async fn look_at_session(&mut self) -> Result<(), End> {
        let Some(held) = &mut self.server else {
            return self.recover().await;
        };
        let house = Rc::clone(&self.house);
        let term = (!held.server.side.standby).then_some(held.server.side.term);
        let unsent = std::mem::take(&mut self.to_server);
        let mut looked = held.server.send(&unsent).await;
        if looked.is_ok() && self.talk.guard_ended() {
            let wanted = self.kept.setting("default_transaction_read_only");
            let back = match wanted {
                Some(value) => format!("SET default_transaction_read_only = {}", literal(value)),
                None => "RESET default_transaction_read_only".to_owned(),
            };
            looked = while_served(&house, term, held.server.order(&back)).await;
        }
        if looked.is_ok() && self.talk.wants_look() {
            let question = question(&self.talk.custom);
            looked = match while_served(&house, term, look(&mut held.server, &question)).await {
                Ok(answer) => while_served(&house, term, self.looked(&answer)).await,
                Err(error) => Err(error),
            };
        }
        if looked.is_err() {
            return self.recover().await;
        }
        self.talk.release(&mut self.to_client);
        Ok(())
    }

    async fn looked(&mut self, answer: &Answer) -> Result<(), ExchangeError> {
        self.to_client.extend_from_slice(&answer.aside);
        if answer.error.is_some() {
            // A role that may not read the catalogues: what it has cannot be carried over.
            self.kept.lost_with_server = Some(&refusal::STATE_UNKNOWN);
            return Ok(());
        }
        self.kept = Kept::from_rows(&answer.rows, &self.key.user);
        if self.talk.refuse_lowered
            && self.kept.raise_commit()
            && let Some(held) = &mut self.server
        {
            held.server.order("SET synchronous_commit = on").await?;
            refusal::COMMIT_RAISED.push_notice(&mut self.to_client);
        }
        // However it came to that: by a statement that was warned of, by a function, by RESET.
        let lowered = !self.talk.refuse_lowered && self.kept.lowers_commit();
        if lowered && !self.talk.warned {
            self.talk.warn(&mut self.to_client);
        }
        self.talk.warned = lowered;
        if self.kept.quiet
            && let Some(held) = &mut self.server
        {
            held.server.order("SET client_min_messages = warning").await?;
        }
        self.talk.quiet = self.kept.quiet;
        Ok(())
    }

    /// The pool's principal, its term or its plans have changed.
    pub(super) async fn route_changed(&mut self) -> Result<(), End> {
        self.generation = self.house.pool.generation();
        let snapshot = self.house.pool.current();
        let Some(held) = &self.server else {
            self.house.report_drained();
            return Ok(());
        };
        if held.server.side.standby {
            if snapshot.principal.is_some() && self.talk.is_quiet() {
                // What it had on the standby is not on the principal.
                if let Some(reason) = self.kept.lost_with_server {
                    return self.end(reason);
                }
                self.detach();
            }
            return Ok(());
        }
        let term = held.server.side.term;
        if self.house.pool.lease(term) == Lease::Over {
            return self.recover().await;
        }
        let principal = snapshot.principal.as_ref();
        self.talk.hold = !principal.is_some_and(|it| it.term == term && !it.handing_over);
        self.house.report_drained();
        Ok(())
    }

    fn end(&mut self, refused: &'static Refusal) -> Result<(), End> {
        self.last_word(refused);
        Err(End::Unrestorable)
    }

    /// Says the last words, and gives the server back.
    pub(super) async fn leave(mut self) {
        self.busy = None;
        self.house.report_drained();
        // A cancel that is on its way must not meet the next client's statement.
        let quiet = self.talk.is_quiet() && self.seat.cancels.get() == 0;
        let (house, key) = (Rc::clone(&self.house), Rc::clone(&self.key));
        drop(self.seat);
        if let Some(held) = self.server.take().filter(|_| quiet) {
            // The next client need not wait for this one's last words.
            tokio::task::spawn_local(async move {
                house.servers.give_back(&house, key, held).await;
            });
        }
        if !self.to_client.is_empty() {
            let _heard = timeout(FAREWELL, farewell(self.stream, &self.to_client)).await;
        } else if self.stream.is_tls() {
            let _closed = timeout(FAREWELL, self.stream.shutdown()).await;
        }
    }
}

/// Does something on the server of `term`'s principal, as long as it may serve. Of a standby there
/// is no term: it has the time that a connection may take.
async fn while_served<T>(
    house: &House,
    term: Option<u64>,
    work: impl Future<Output = Result<T, ExchangeError>>,
) -> Result<T, ExchangeError> {
    let lost = || ExchangeError::Lost(std::io::ErrorKind::TimedOut.into());
    let times = &house.config.file.times;
    let Some(term) = term else {
        return timeout(times.connect(), work).await.unwrap_or(Err(lost()));
    };
    let mut work = pin!(timeout(times.hold(), work));
    loop {
        let changed = house.pool.changed();
        if house.pool.lease(term) == Lease::Over {
            return Err(lost());
        }
        tokio::select! {
            done = &mut work => return done.unwrap_or(Err(lost())),
            () = changed => {}
        }
    }
}

/// Asks until the transaction has ended; of one in the serving term the answer holds when a later
/// commit has been acknowledged.
async fn ask_status(
    server: &mut Server,
    doubt: Doubt,
    judgement: Judgement,
) -> Result<Outcome, ExchangeError> {
    loop {
        let question = in_doubt::STATUS.replace("$1", &literal(&doubt.xid.to_string()));
        let answer = server.ask(&question).await?;
        if let Some((sqlstate, _)) = &answer.error {
            // A server that shuts down: the next principal knows as well.
            return match sqlstate.starts_with("57P") {
                true => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
                false => Ok(Outcome::Unknown),
            };
        }
        let status = answer.rows.into_iter().flatten().next().flatten();
        match in_doubt::read(judgement, status.as_deref()) {
            Reading::Told(outcome) => return Ok(outcome),
            Reading::NotYet => sleep(ASK_AGAIN).await,
            Reading::AfterCommit(outcome) => {
                let barrier = server.ask(in_doubt::BARRIER).await?;
                if barrier.error.is_none() && !barrier.wait_cancelled {
                    return Ok(outcome);
                }
                sleep(ASK_AGAIN).await;
            }
        }
    }
}

/// Asks what a client session is. A cancel that came late, or a short `statement_timeout`, may hit
/// the question: it is asked again.
async fn look(server: &mut Server, question: &str) -> Result<Answer, ExchangeError> {
    let mut answer = server.ask(question).await?;
    for _ in 0..3 {
        if answer.error.as_ref().is_none_or(|(sqlstate, _)| sqlstate != "57014") {
            break;
        }
        answer = server.ask(question).await?;
    }
    Ok(answer)
}

/// Clients of very many kinds are not all remembered.
const GREETINGS: usize = 1_000;

fn remember(
    greetings: &RefCell<Greetings>,
    key: &Rc<Key>,
    parameters: &Rc<BTreeMap<String, String>>,
) {
    let mut greetings = greetings.borrow_mut();
    if greetings.len() >= GREETINGS {
        greetings.clear();
    }
    greetings.insert(Rc::clone(key), Rc::clone(parameters));
}
