//! What a batch may do where it stands, and what may be sent behind it.

use wire::sql::{Kind, Touches};

use super::{Batch, Class, Conversation, FAILED, IDLE, OPEN, Progress};

impl Conversation {
    /// The class of an extended batch that has executed nothing yet.
    pub(super) fn class_at_start(&self) -> Class {
        if self.status == IDLE { Class::Read } else { Class::Inside }
    }

    pub(super) fn start_batch(&mut self, class: Class) {
        self.batches.push_back(Batch {
            class,
            begun: self.status,
            now: self.status,
            ended: false,
            bound: false,
            over: false,
            executed: false,
            answered: false,
            prompt: false,
            binds_copy: false,
            bytes: 0,
            whole: true,
            visible: false,
            held: !matches!(class, Class::Read | Class::Inside | Class::Opaque),
            rewritten: false,
            progress: Progress::Open,
            touches: Touches::NONE,
            calls: false,
            copies: false,
            flushed: false,
            cancelled_wait: false,
            failed: false,
        });
    }

    /// Whether a batch of this class may be sent behind those that are unanswered.
    pub(super) fn may_follow(&self, class: Class, own: usize) -> bool {
        let before = self.batches.len() - own;
        if before == 0 {
            return true;
        }
        // Only the repeated ones may stand in the transactions that only read.
        let beside_guarded = self.guarded == 0 || before < self.guarded;
        let mut earlier = self.batches.iter().take(before);
        matches!(class, Class::Read | Class::Inside)
            && beside_guarded
            && earlier.all(|batch| batch.class == class && batch.now == self.status)
    }

    /// The class of a statement where it stands.
    pub(super) fn class(&self, kind: Kind) -> Class {
        let open = self.batches.back().filter(|batch| !batch.ended);
        let now = open.map_or(self.status, |batch| batch.now);
        match kind {
            Kind::TwoPhase(_) => Class::Opaque,
            Kind::Commit { .. } if now == OPEN => Class::Commit,
            // In a failed transaction either is a ROLLBACK.
            Kind::Commit { .. } | Kind::Rollback { .. } => Class::Session,
            _other if now != IDLE => Class::Inside,
            Kind::Empty | Kind::Read => Class::Read,
            Kind::LockRead | Kind::Session | Kind::Begin { .. } | Kind::Savepoint => Class::Session,
            Kind::Write | Kind::CopyIn => Class::Write,
            Kind::Opaque => Class::Opaque,
        }
    }

    /// What a statement does to the transaction and the client session.
    pub(super) fn note(&mut self, kind: Kind, touches: Touches, calls: bool) {
        // A cursor calls what its query calls.
        self.tx_writes |= calls;
        match kind {
            Kind::Empty
            | Kind::Read
            | Kind::LockRead
            | Kind::Session
            | Kind::Begin { .. }
            | Kind::Commit { .. }
            | Kind::Rollback { .. }
            | Kind::Savepoint => {}
            Kind::Write | Kind::CopyIn | Kind::TwoPhase(_) | Kind::Opaque => self.tx_writes = true,
        }
        self.tx_notifies |= touches.any(Touches::NOTIFY);
        self.touched |= touches;
        let Some(batch) = self.batches.back_mut() else {
            return;
        };
        batch.touches |= touches;
        batch.calls |= calls && kind == Kind::Read;
        match (kind, batch.now) {
            (Kind::Begin { .. }, IDLE) => batch.now = OPEN,
            (Kind::Commit { chain } | Kind::Rollback { chain }, _) => {
                batch.over = true;
                batch.now = if chain && batch.now != IDLE { OPEN } else { IDLE };
            }
            // ROLLBACK TO.
            (Kind::Savepoint, FAILED) => batch.now = OPEN,
            (
                Kind::Empty
                | Kind::Read
                | Kind::LockRead
                | Kind::Session
                | Kind::Begin { .. }
                | Kind::Savepoint
                | Kind::Write
                | Kind::CopyIn
                | Kind::TwoPhase(_)
                | Kind::Opaque,
                _,
            ) => {}
        }
    }

    pub(super) fn become_opaque(&mut self) {
        if let Some(batch) = self.batch() {
            batch.class = Class::Opaque;
        }
    }

    pub(super) fn end_batch(&mut self) {
        if let Some(batch) = self.batch() {
            batch.ended = true;
        }
    }
}
