//! What becomes of a client session whose server is gone: what is repeated, what is judged, and
//! what the client is told.
//!
//! Nothing is repeated of which the client has seen a part, or which may have been committed.

use super::from_client::Out;
use super::{Awaited, Batch, Class, Conversation, FAILED, IDLE, LASTING, OPEN, Owed, Progress};
use crate::in_doubt::{Doubt, Outcome};
use crate::refusal::{self, Refusal};
use wire::frame::push;
use wire::sql::Touches;

/// What is left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// The client has been told, or will be when it asks; or it will not notice.
    Settled,
    /// Find out whether this was committed, and say so by `judged`.
    Doubt(Doubt),
    /// The client session ends with this word.
    End(&'static Refusal),
    /// The client session ends in the middle of a message: nothing can be said.
    Close,
}

/// How often a batch is repeated: one that ends each server it runs on must not go on for ever.
const MOST_REPEATS: u32 = 3;

impl Conversation {
    /// The server is gone. `pending` are the client's bytes that have not been taken; what is to be
    /// repeated is put in front of them.
    pub fn cut_off(&mut self, pending: &mut Vec<u8>, out: &mut Out<'_>) -> Cut {
        let side = self.server.take();
        self.gate = None;
        self.owes_sync = false;
        self.held_back = None;
        self.skipping = false;
        self.copy_in = false;
        self.dropping_in += std::mem::take(&mut self.passing_in);
        let in_a_message = std::mem::take(&mut self.passing_out) > 0 && !self.passing_hidden;
        if in_a_message && self.reply.is_empty() {
            return Cut::Close;
        }
        if self.ready.is_some() {
            if self.wants_look() {
                return Cut::End(&refusal::STATE_UNKNOWN);
            }
            self.release(out.client);
        }
        let Some(first) = self.batches.front().cloned() else {
            let unseen = self.status == IDLE && self.wants_look();
            self.cut_while_idle();
            return if unseen { Cut::End(&refusal::STATE_UNKNOWN) } else { Cut::Settled };
        };
        let (term, timeline) = side.map_or((0, 0), |side| (side.term, side.timeline));
        match (first.class, first.progress) {
            (Class::Read, _) => self.cut_reads(&first, pending, out),
            (Class::Session, _) if first.calls && first.begun == IDLE => {
                self.tell(&first, &refusal::UNKNOWN, IDLE, out);
                self.repeat_rest(pending, out)
            }
            (Class::Session, _) => {
                if first.begun != IDLE {
                    self.owed = Owed::FailedTransaction;
                }
                self.repeat_or_tell(&first, &refusal::ANSWER_CUT_OFF, pending, out)
            }
            (Class::Inside, _) => self.cut_inside(&first, pending, out),
            (Class::Write, Progress::Open | Progress::Committing { id: None, .. }) => {
                self.repeat_or_tell(&first, &refusal::NOT_COMMITTED, pending, out)
            }
            (Class::Commit, Progress::Open) => {
                self.not_committed(&first, &refusal::TRANSACTION_CUT_OFF, pending, out)
            }
            (Class::Commit, Progress::Committing { id: None, serializable }) => {
                // It wrote nothing, so nothing is lost by calling it committed, unless it could
                // have failed.
                if serializable || !self.can_be_answered(&first) {
                    return self.not_committed(&first, &refusal::NOT_COMMITTED, pending, out);
                }
                self.tell_committed(&first, out);
                self.after_commit(pending, out)
            }
            (Class::Write | Class::Commit, Progress::Committing { id: Some(id), .. }) => {
                Cut::Doubt(Doubt { xid: id, term, timeline })
            }
            (Class::Opaque, _) => {
                self.tell(&first, &refusal::UNKNOWN, IDLE, out);
                self.repeat_rest(pending, out)
            }
        }
    }

    /// What was found out of the doubt that `cut_off` returned.
    pub fn judged(&mut self, outcome: Outcome, pending: &mut Vec<u8>, out: &mut Out<'_>) -> Cut {
        let Some(first) = self.batches.front().cloned() else {
            return Cut::Settled;
        };
        match outcome {
            Outcome::Committed => {
                self.tell_committed(&first, out);
                self.after_commit(pending, out)
            }
            Outcome::NotCommitted => {
                self.not_committed(&first, &refusal::NOT_COMMITTED, pending, out)
            }
            Outcome::Unknown => {
                self.tell(&first, &refusal::UNKNOWN, IDLE, out);
                self.repeat_rest(pending, out)
            }
        }
    }

    fn cut_while_idle(&mut self) {
        self.cut_transactions += u64::from(self.status == OPEN);
        self.owed = match (self.status, self.owed) {
            (OPEN, _) => Owed::CutTransaction,
            (FAILED, _) => Owed::FailedTransaction,
            (_idle, owed) => owed,
        };
        self.expected.clear();
        self.statements.cut_off();
    }

    fn cut_reads(&mut self, first: &Batch, pending: &mut Vec<u8>, out: &mut Out<'_>) -> Cut {
        if first.visible || !first.whole {
            let told = if first.calls { &refusal::UNKNOWN } else { &refusal::ANSWER_CUT_OFF };
            self.tell(first, told, IDLE, out);
        }
        if self.batches.iter().any(|batch| batch.calls) {
            self.guarded = self.guarded.max(self.batches.len());
        }
        self.repeat_rest(pending, out)
    }

    fn cut_inside(&mut self, first: &Batch, pending: &mut Vec<u8>, out: &mut Out<'_>) -> Cut {
        self.cut_transactions += u64::from(first.begun == OPEN);
        let may_be_repeated = match (first.begun, first.now) {
            // It opened the transaction itself.
            (IDLE, _) => true,
            (FAILED, FAILED) => {
                self.owed = Owed::FailedTransaction;
                true
            }
            _within => false,
        };
        if may_be_repeated && !first.visible && first.whole {
            return self.repeat_rest(pending, out);
        }
        self.tell(first, &refusal::TRANSACTION_CUT_OFF, FAILED, out);
        self.repeat_rest(pending, out)
    }

    /// A batch that commits, and has committed nothing: it is repeated if all of its transaction is
    /// in it.
    fn not_committed(
        &mut self,
        first: &Batch,
        refused: &Refusal,
        pending: &mut Vec<u8>,
        out: &mut Out<'_>,
    ) -> Cut {
        if first.begun == IDLE {
            return self.repeat_or_tell(first, refused, pending, out);
        }
        self.tell(first, refused, IDLE, out);
        self.repeat_rest(pending, out)
    }

    fn repeat_or_tell(
        &mut self,
        first: &Batch,
        refused: &Refusal,
        pending: &mut Vec<u8>,
        out: &mut Out<'_>,
    ) -> Cut {
        if first.visible || !first.whole {
            self.tell(first, refused, IDLE, out);
        }
        self.repeat_rest(pending, out)
    }

    /// Tells the client what became of its first unanswered batch.
    fn tell(&mut self, first: &Batch, refused: &Refusal, status: u8, out: &mut Out<'_>) {
        self.reply.clear();
        if !(first.failed && first.visible && !first.held) {
            refused.push(out.client);
        }
        self.status = status;
        self.owed = if status == FAILED { Owed::FailedTransaction } else { Owed::Nothing };
        if first.ended {
            refusal::ready(out.client, status);
        } else {
            self.discarding = Some(status);
        }
        self.drop_first(first);
    }

    fn drop_first(&mut self, first: &Batch) {
        self.batches.pop_front();
        self.guarded = self.guarded.saturating_sub(1);
        self.kept.drain(..first.bytes.min(self.kept.len()));
        while let Some(front) = self.expected.pop_front() {
            if front.ends {
                break;
            }
        }
    }

    /// Whether what the client has not been told of a committed batch is known.
    fn can_be_answered(&self, first: &Batch) -> bool {
        let shown = |one: &&super::Expected| !one.ends && !one.hidden;
        let own = self.expected.iter().take_while(|one| !one.ends).filter(shown);
        let (mut executes, mut others) = (usize::from(first.answered && first.bound), 0);
        for one in own {
            match one.what {
                Awaited::Execute => executes += 1,
                Awaited::DescribeStatement => others += 1,
                Awaited::Parse
                | Awaited::Bind
                | Awaited::Close
                | Awaited::Describe
                | Awaited::Sync
                | Awaited::Query => {}
            }
        }
        let due = usize::from(first.class == Class::Commit && first.bound);
        let sent = due == 0 || first.executed;
        sent && !first.failed && others == 0 && executes == due
    }

    /// The rest of the replies as the server would have sent them.
    fn tell_committed(&mut self, first: &Batch, out: &mut Out<'_>) {
        if !self.can_be_answered(first) {
            return self.tell(first, &refusal::COMMITTED_WITHOUT_ROWS, IDLE, out);
        }
        out.client.append(&mut self.reply);
        let own = self.expected.iter().position(|one| one.ends).unwrap_or(self.expected.len());
        for one in self.expected.iter().take(own + 1).filter(|one| !one.hidden) {
            match one.what {
                Awaited::Parse => {
                    self.statements.confirm(one.name.as_deref().unwrap_or_default(), one.number);
                    push(out.client, b'1', |_| {});
                }
                Awaited::Bind => push(out.client, b'2', |_| {}),
                Awaited::Close => push(out.client, b'3', |_| {}),
                Awaited::Describe => push(out.client, b'n', |_| {}),
                Awaited::Execute => refusal::complete(out.client, "COMMIT"),
                Awaited::Query if !first.answered => refusal::complete(out.client, "COMMIT"),
                Awaited::Query | Awaited::Sync | Awaited::DescribeStatement => {}
            }
        }
        let status = if first.now == OPEN { OPEN } else { IDLE };
        self.status = status;
        self.owed = if status == OPEN { Owed::CutTransaction } else { Owed::Nothing };
        // What else comes before its Sync has nothing to do with the transaction.
        if first.ended {
            refusal::ready(out.client, status);
        }
        self.drop_first(first);
    }

    /// What a committed transaction did to the client session is not on the next server.
    fn after_commit(&mut self, pending: &mut Vec<u8>, out: &mut Out<'_>) -> Cut {
        if self.touched.any(LASTING) {
            return Cut::End(&refusal::STATE_UNKNOWN);
        }
        self.tx_writes = false;
        self.tx_notifies = false;
        self.repeat_rest(pending, out)
    }

    /// Puts all batches that are left in front of what the client has sent since.
    fn repeat_rest(&mut self, pending: &mut Vec<u8>, out: &mut Out<'_>) -> Cut {
        if self.in_a_row >= MOST_REPEATS
            && let Some(first) = self.batches.front().filter(|one| one.begun == IDLE).cloned()
        {
            // It may be what the servers end of.
            let told = if first.calls { &refusal::UNKNOWN } else { &refusal::REPEATED_IN_VAIN };
            self.tell(&first, told, IDLE, out);
            self.in_a_row = 0;
        }
        self.in_a_row += u32::from(!self.batches.is_empty());
        // The rest of a message that is to be dropped stands first in `pending`.
        let mixed = self.dropping_in > 0 && !self.kept.is_empty();
        if mixed || self.batches.iter().any(|batch| !batch.whole) {
            return Cut::End(&refusal::ANSWER_LOST);
        }
        self.repeated += self.batches.len() as u64;
        if !self.kept.is_empty() {
            let behind = std::mem::replace(pending, std::mem::take(&mut self.kept));
            pending.extend_from_slice(&behind);
        }
        self.batches.clear();
        self.expected.clear();
        self.statements.cut_off();
        self.reply.clear();
        self.touched = Touches::NONE;
        Cut::Settled
    }
}
