//! What a batch may do where it stands, and what may be sent behind it.

use wire::sql::{Kind, Touches};

use super::{Batch, Class, Conversation, FAILED, IDLE, Progress};

impl Conversation {
    pub(super) fn start_batch(&mut self, class: Class) {
        self.batches.push_back(Batch {
            class,
            begun: self.status,
            ended: false,
            bytes: 0,
            whole: true,
            visible: false,
            held: !matches!(class, Class::Read | Class::Inside | Class::Opaque),
            rewritten: false,
            progress: Progress::Open,
            touches: Touches::NONE,
            calls: false,
            opens: false,
            chains: false,
            copies: false,
            flushed: false,
            cancelled_wait: false,
            failed: false,
        });
    }

    /// Whether a batch of this class may be sent behind those that are unanswered.
    pub(super) fn may_follow(&self, class: Class, own: usize) -> bool {
        let before = self.batches.len() - own;
        before == 0
            || (class == Class::Read || class == Class::Inside)
                && self.batches.iter().take(before).all(|batch| batch.class == class)
    }

    /// The class of a statement where it stands.
    pub(super) fn class(&self, kind: Kind) -> Class {
        let inside = self.status != IDLE || self.batch_opens();
        if self.status == FAILED && !self.batch_opens() {
            return Class::Inside;
        }
        match kind {
            Kind::Commit { .. } if inside => Class::Commit,
            Kind::Rollback { .. } if inside => Class::Session,
            Kind::TwoPhase(_) => Class::Opaque,
            _other if inside => Class::Inside,
            Kind::Empty | Kind::Read => Class::Read,
            Kind::LockRead
            | Kind::Session
            | Kind::Begin { .. }
            | Kind::Commit { .. }
            | Kind::Rollback { .. }
            | Kind::Savepoint => Class::Session,
            Kind::Write | Kind::CopyIn => Class::Write,
            Kind::Opaque => Class::Opaque,
        }
    }

    pub(super) fn batch_opens(&self) -> bool {
        self.batches.back().is_some_and(|batch| !batch.ended && batch.opens)
    }

    /// What a statement does to the transaction and the client session.
    pub(super) fn note(&mut self, kind: Kind, touches: Touches, calls: bool) {
        match kind {
            Kind::Read | Kind::LockRead => self.tx_writes |= calls,
            Kind::Empty
            | Kind::Session
            | Kind::Begin { .. }
            | Kind::Commit { .. }
            | Kind::Rollback { .. }
            | Kind::Savepoint => {}
            Kind::Write | Kind::CopyIn | Kind::TwoPhase(_) | Kind::Opaque => self.tx_writes = true,
        }
        self.tx_notifies |= touches.any(Touches::NOTIFY);
        self.touched |= touches;
        self.called |= calls;
        if let Some(batch) = self.batch() {
            batch.touches |= touches;
            batch.calls |= calls;
            match kind {
                Kind::Begin { .. } => batch.opens = true,
                Kind::Commit { chain: false } | Kind::Rollback { chain: false } => {
                    batch.opens = false;
                }
                Kind::Commit { chain: true } => batch.chains = true,
                Kind::CopyIn => batch.copies = true,
                Kind::Empty
                | Kind::Read
                | Kind::LockRead
                | Kind::Session
                | Kind::Rollback { chain: true }
                | Kind::Savepoint
                | Kind::Write
                | Kind::TwoPhase(_)
                | Kind::Opaque => {}
            }
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
