//! One client session's talk with its server, message by message, without any socket.
//!
//! Both directions are walked at message borders. What the client sends is cut into *batches*: a
//! simple query, a function call, or everything up to a Sync; each ends with one ReadyForQuery.
//! A batch that may commit something is *gated*: before the message that commits, the server is
//! asked for the transaction's id, and the commit is sent only when the answer is here. So whatever
//! is cut off later has an id to be judged by (G3). While such a batch is unanswered no other is
//! begun; only reads, and statements inside a transaction, are pipelined.
//!
//! Hidden messages are those of the gateway; their replies are not passed on.

mod batch;
mod cut;
mod from_client;
mod from_server;
mod gate;
mod prepared;
mod statements;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use wire::sql::Touches;

use crate::refusal;

pub use cut::Cut;
pub use from_client::Out;
pub use from_server::WAIT;
pub use gate::push_ids;
pub use statements::Statements;

/// The status byte of ReadyForQuery.
pub const IDLE: u8 = b'I';
pub const OPEN: u8 = b'T';
pub const FAILED: u8 = b'E';

/// Answers with the transaction's id, if it has one, and its isolation.
const ASK_ID: &str = "backstay_id";
const ASK_ID_TEXT: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned(), \
     pg_catalog.current_setting('transaction_isolation')";
/// The same, and gives it one: for what gets an id only while it commits.
const MAKE_ID: &str = "backstay_new_id";
const MAKE_ID_TEXT: &str = "SELECT pg_catalog.pg_current_xact_id(), \
     pg_catalog.current_setting('transaction_isolation')";
/// Behind either: whatever the statements before have set, this commit waits for the mirror.
const WAIT_TEXT: &str = ", pg_catalog.set_config('synchronous_commit', \
     CASE pg_catalog.current_setting('synchronous_commit') WHEN 'remote_apply' \
     THEN 'remote_apply' ELSE 'on' END, true)";

/// What a statement leaves in the client session that must be known before the next failover.
const LASTING: Touches = Touches::SETTING
    .and(Touches::TEMP)
    .and(Touches::ADVISORY)
    .and(Touches::HOLD)
    .and(Touches::LISTEN)
    .and(Touches::PREPARED)
    .and(Touches::BODY)
    .and(Touches::RESETS)
    .and(Touches::DISCARDS);

/// Messages up to this size are looked at as a whole; of larger ones the beginning.
pub const WHOLE: usize = 64 * 1024;

/// What the walk over one side's bytes ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// All whole messages are taken.
    More,
    /// The server must answer first.
    Wait,
    /// A batch begins, and there is no server for it.
    NeedServer { reads: bool },
    /// The client has said good-bye.
    Terminate,
    /// The client does not keep to the protocol.
    Broken,
}

/// What the server's bytes amounted to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// All whole messages are taken.
    More,
    /// A batch has ended outside any transaction, and what it did to the client session must be
    /// looked at before the client is told: then `release`.
    LookAtSession,
    /// A batch has ended outside any transaction, and nothing else is under way.
    Idle,
    /// The server ends the connection, because it shuts down.
    ServerEnds,
    /// The server ends the connection for a reason that the client has been told.
    SessionEnds,
    /// The server does not keep to the protocol.
    Broken,
}

/// The server's side of the talk, as far as it matters here.
#[derive(Clone, Debug)]
pub struct ServerSide {
    /// Changes with each connection, and with each change of its user.
    pub serial: u64,
    pub term: u64,
    pub timeline: u32,
    pub standby: bool,
    /// The statements that ask for ids are there.
    pub ids_prepared: bool,
    /// Of a connection that serves one client session after the other: the named statements that
    /// it has, each with its Parse message.
    pub shared: Option<SharedStatements>,
}

/// What the names of prepared statements mean on one server connection.
pub type SharedStatements = Rc<RefCell<HashMap<Box<[u8]>, Rc<[u8]>>>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Awaited {
    Parse,
    Bind,
    Close,
    /// Of a portal.
    Describe,
    DescribeStatement,
    Execute,
    /// Ends with ReadyForQuery.
    Sync,
    /// Any replies, and then ReadyForQuery.
    Query,
}

/// A reply that is to come.
#[derive(Clone, Debug)]
struct Expected {
    what: Awaited,
    hidden: bool,
    /// It ends a batch.
    ends: bool,
    /// The gate waits for it.
    gate: bool,
    /// The named statement that a Parse makes.
    name: Option<Rc<[u8]>>,
    /// The number that the statement got.
    number: u64,
}

/// What a batch may do, and so what is done with it when it is cut off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    /// It writes nothing, as far as its text tells: repeated in a transaction that only reads.
    Read,
    /// It changes this client session at most: repeated.
    Session,
    /// Inside a transaction, which is lost with it.
    Inside,
    /// It commits what it writes: judged by its id.
    Write,
    /// It ends a transaction: judged by its id.
    Commit,
    /// What it did cannot be known.
    Opaque,
}

/// How far a batch that commits has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    /// What commits has not been sent.
    Open,
    /// What commits has been sent.
    Committing { id: Option<u64>, serializable: bool },
}

#[derive(Clone, Debug)]
struct Batch {
    class: Class,
    /// The transaction status when it began.
    begun: u8,
    /// The same behind what has been walked of it, if nothing of it fails.
    now: u8,
    /// Its last message has come.
    ended: bool,
    /// How many of the kept bytes are its own.
    bytes: usize,
    /// All its bytes are kept: it can be repeated.
    whole: bool,
    /// The client has seen a part of its replies.
    visible: bool,
    /// Its replies are held until it is certain.
    held: bool,
    /// A simple query that is sent as an extended one.
    rewritten: bool,
    progress: Progress,
    touches: Touches,
    calls: bool,
    /// It has bound a statement.
    bound: bool,
    /// It has ended a transaction.
    over: bool,
    /// The end of its transaction has been asked for; and answered.
    executed: bool,
    answered: bool,
    /// The client wants its replies before it ends.
    prompt: bool,
    /// What it has bound last takes data from the client.
    binds_copy: bool,
    /// It takes data from the client, which the server has not asked for yet.
    copies: bool,
    /// The server has been asked to answer what it has got so far.
    flushed: bool,
    /// The server said that its wait for the mirror was cancelled.
    cancelled_wait: bool,
    failed: bool,
}

/// What is sent when the transaction's id has come.
#[derive(Clone, Debug)]
struct Gate {
    /// Replies that must come before it opens.
    left: usize,
    then: Then,
    id: Option<u64>,
    serializable: bool,
}

#[derive(Clone, Debug)]
enum Then {
    /// The Sync of an extended batch.
    Sync,
    /// A simple COMMIT: these bytes.
    Query(Vec<u8>),
    /// The Bind of an extended COMMIT: these bytes.
    Bind(Vec<u8>),
}

/// What the client is owed after its server was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owed {
    Nothing,
    /// Its transaction was cut off while it was idle: the next statement is told.
    CutTransaction,
    /// It has been told, and is inside a failed transaction that the next server must have, too.
    FailedTransaction,
}

#[derive(Debug)]
pub struct Conversation {
    pub server: Option<ServerSide>,
    /// As the server told it last.
    pub status: u8,
    /// No new batch outside a transaction: the principal hands over.
    pub hold: bool,
    /// Strings with backslashes are what the standard says.
    pub conforming: bool,
    /// Texts can be read byte by byte in the client's encoding.
    pub readable: bool,
    /// Statements that lower `synchronous_commit` are refused.
    pub refuse_lowered: bool,
    /// The client has been warned that its commits do not wait for the mirror, and it is still so.
    pub warned: bool,
    pub kept_limit: usize,
    pub statements: Statements,
    expected: VecDeque<Expected>,
    batches: VecDeque<Batch>,
    /// The client's messages of the unanswered batches.
    kept: Vec<u8>,
    /// The replies of a batch that is held.
    reply: Vec<u8>,
    gate: Option<Gate>,
    /// What the gate has let through, while a cancel is on its way to the server.
    held_back: Option<(Then, Option<u64>, bool)>,
    /// Cancels on their way to the server.
    pub cancels: usize,
    /// A Sync of the gateway's own is due when the message that is being passed on has ended.
    owes_sync: bool,
    /// How often the first batch has been repeated.
    in_a_row: u32,
    /// After an error the server passes over messages until a Sync.
    skipping: bool,
    copy_in: bool,
    /// Bytes of a large message that are still to come: from the client, from the server.
    passing_in: usize,
    passing_out: usize,
    /// The same, of a message whose server is gone.
    dropping_in: usize,
    /// Whether those from the server are passed on.
    passing_hidden: bool,
    /// The status that ends what is being passed over until a Sync.
    discarding: Option<u8>,
    owed: Owed,
    /// The transaction may have written something.
    tx_writes: bool,
    tx_notifies: bool,
    touched: Touches,
    /// Transactions may be serializable: the commit of one may fail although it wrote nothing.
    serializable: bool,
    /// The end of the transaction has been bound, and perhaps not been executed.
    loose_end: bool,
    /// The ReadyForQuery that is held while the session is looked at.
    ready: Option<u8>,
    /// This many batches are repeated in transactions that only read.
    guarded: usize,
    /// What the server has told of its parameters, and nobody has looked at yet.
    pub parameters: Vec<(String, String)>,
    /// Settings of the client's own that no catalogue lists.
    pub custom: Vec<String>,
    /// The client wants no notices, which the gateway needs.
    pub quiet: bool,
    /// The server's bytes wait until its lease is known to have been renewed.
    pub awaits_lease: bool,
    guard_ended: bool,
    /// Transactions that were cut off before their commit was sent.
    pub cut_transactions: u64,
    /// Batches that were refused here, repeated, and committed behind a gate.
    pub refusals: u64,
    pub repeated: u64,
    pub commits: u64,
}

impl Conversation {
    pub fn new(kept_limit: usize, refuse_lowered: bool) -> Conversation {
        Conversation {
            server: None,
            status: IDLE,
            hold: false,
            conforming: true,
            readable: true,
            refuse_lowered,
            warned: false,
            kept_limit,
            statements: Statements::default(),
            expected: VecDeque::new(),
            batches: VecDeque::new(),
            kept: Vec::new(),
            reply: Vec::new(),
            gate: None,
            held_back: None,
            cancels: 0,
            owes_sync: false,
            in_a_row: 0,
            skipping: false,
            copy_in: false,
            passing_in: 0,
            passing_out: 0,
            dropping_in: 0,
            passing_hidden: false,
            discarding: None,
            owed: Owed::Nothing,
            tx_writes: false,
            tx_notifies: false,
            touched: Touches::NONE,
            serializable: false,
            loose_end: false,
            ready: None,
            guarded: 0,
            parameters: Vec::new(),
            custom: Vec::new(),
            quiet: false,
            awaits_lease: false,
            guard_ended: false,
            cut_transactions: 0,
            refusals: 0,
            repeated: 0,
            commits: 0,
        }
    }

    /// No batch is unanswered, and no transaction is open.
    pub fn is_quiet(&self) -> bool {
        self.batches.is_empty()
            && self.expected.is_empty()
            && self.status == IDLE
            && self.owed == Owed::Nothing
            && self.discarding.is_none()
            && self.passing_in == 0
    }

    /// Something is under way on the server: a transaction, or a batch.
    pub fn is_busy(&self) -> bool {
        self.server.is_some() && !(self.batches.is_empty() && self.status == IDLE)
    }

    /// A batch is unanswered.
    pub fn is_unanswered(&self) -> bool {
        !self.batches.is_empty()
    }

    /// The client has got a part of a message, and not its end.
    pub fn is_in_a_message(&self) -> bool {
        self.passing_out > 0 && !self.passing_hidden
    }

    /// A commit has been sent, or may have been, and its reply has not come: a cancel would make
    /// the server acknowledge what the mirror does not have.
    pub fn is_committing(&self) -> bool {
        self.batches.iter().any(|batch| matches!(batch.progress, Progress::Committing { .. }))
    }

    /// The next server must begin with a transaction that has failed.
    pub fn needs_failed_transaction(&self) -> bool {
        self.owed == Owed::FailedTransaction
    }

    /// The next server has it.
    pub fn has_failed_transaction(&mut self) {
        self.owed = Owed::Nothing;
        self.status = FAILED;
    }

    /// Batches are to be repeated in transactions that only read.
    pub fn needs_guard(&self) -> bool {
        self.guarded > 0
    }

    /// Gives memory back while nothing is under way.
    pub fn rest(&mut self) {
        const SMALL: usize = 512;
        if self.kept.capacity() > SMALL {
            self.kept = Vec::new();
        }
        if self.reply.capacity() > SMALL {
            self.reply = Vec::new();
        }
        if self.expected.capacity() > 8 {
            self.expected = VecDeque::new();
        }
        if self.batches.capacity() > 4 {
            self.batches = VecDeque::new();
        }
    }

    /// Warns the client that its commits do not wait for the mirror.
    pub fn warn(&mut self, client: &mut Vec<u8>) {
        self.warned = true;
        refusal::LOWERED_WARNING.push_notice(client);
    }

    fn expect(&mut self, what: Awaited, hidden: bool) {
        let ends = matches!(what, Awaited::Sync | Awaited::Query) && !hidden;
        self.expected.push_back(Expected {
            what,
            hidden,
            ends,
            gate: false,
            name: None,
            number: 0,
        });
    }

    fn batch(&mut self) -> Option<&mut Batch> {
        self.batches.back_mut()
    }
}
