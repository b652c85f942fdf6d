//! Every sentence that a member says to people, in one place: what each code means and what to do.
//! Codes are stable; sentences may be improved at any time.

use session::{Alarm, Cause, Obstacle, Phase, Role, Why};

use super::Refusal;

/// Refusals that do not come from the session itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    UnknownRequest,
    UnknownPool,
    UnknownServer,
    UnknownWitness,
    NotAPartner,
    SessionExists,
    DataDirectoryInUse,
    InitialiseFailed,
    TooBusy,
    Unanswered,
    NotDesignated,
    FrontEnd,
    NotPermitted,
    NoTopology,
    UnknownVersion,
    OlderVersion,
    DamagedCopy,
    DocumentTooLarge,
    ForeignDocument,
    NotStore,
    StoreAway,
    PublishInDoubt,
    NotTaken,
    NoAudit,
    UnknownFrontEnd,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::UnknownRequest => "unknown_request",
            Code::UnknownPool => "unknown_pool",
            Code::UnknownServer => "unknown_server",
            Code::UnknownWitness => "unknown_witness",
            Code::NotAPartner => "not_a_partner",
            Code::SessionExists => "session_exists",
            Code::DataDirectoryInUse => "data_directory_in_use",
            Code::InitialiseFailed => "initialise_failed",
            Code::TooBusy => "too_busy",
            Code::Unanswered => "unanswered",
            Code::NotDesignated => "not_designated",
            Code::FrontEnd => "front_end",
            Code::NotPermitted => "not_permitted",
            Code::NoTopology => "no_topology",
            Code::UnknownVersion => "unknown_version",
            Code::OlderVersion => "older_version",
            Code::DamagedCopy => "damaged_copy",
            Code::DocumentTooLarge => "document_too_large",
            Code::ForeignDocument => "foreign_document",
            Code::NotStore => "not_store",
            Code::StoreAway => "store_away",
            Code::PublishInDoubt => "publish_in_doubt",
            Code::NotTaken => "not_taken",
            Code::NoAudit => "no_audit",
            Code::UnknownFrontEnd => "unknown_front_end",
        }
    }

    /// For people; what to do about it is the `hint`.
    fn sentence(self) -> &'static str {
        match self {
            Code::UnknownRequest => "this member does not know the request",
            Code::UnknownPool => "this member has no part in that pool",
            Code::UnknownServer => "no partner of the pool has that name",
            Code::UnknownWitness => "no witness of that name is configured for the pool",
            Code::NotAPartner => "this member is a witness: it holds no data",
            Code::SessionExists => "the pool's session exists already",
            Code::DataDirectoryInUse => {
                "the data directory is not empty, so no new data were made in it"
            }
            Code::InitialiseFailed => "the data could not be initialised",
            Code::TooBusy => "the member has too many requests waiting",
            Code::Unanswered => "the member is stopping and did not answer the request",
            Code::NotDesignated => "only the designated principal makes the data of a new pool",
            Code::FrontEnd => "this is a Front End: it has no part in the session",
            Code::NotPermitted => "the role in this certificate does not permit that",
            Code::NoTopology => "this process has no copy of the topology",
            Code::UnknownVersion => "this version of the topology is not known here",
            Code::OlderVersion => {
                "this process has that version of the topology already, or a newer one"
            }
            Code::DamagedCopy => "the document is not the one that its header speaks of",
            Code::DocumentTooLarge => "the document, its author or its comment is too long",
            Code::ForeignDocument => "the document is of another deployment",
            Code::NotStore => {
                "this server does not serve the pool with the Central Management store"
            }
            Code::StoreAway => {
                "the pool with the Central Management store is not served, so nothing is published"
            }
            Code::PublishInDoubt => "it is not known yet whether the document is published",
            Code::NotTaken => "this process cannot use that version of the topology",
            Code::NoAudit => "this process keeps no audit trail",
            Code::UnknownFrontEnd => "the pool does not name this Front End",
        }
    }

    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Code::UnknownRequest => {
                "the command and the member are of different versions: update both"
            }
            Code::UnknownPool => "check the pool's name, and the [[pool]] sections of this member",
            Code::UnknownServer => "`pool status` shows the partners' names",
            Code::UnknownWitness => {
                "add it to the configuration of all members, restart them, and ask again"
            }
            Code::NotAPartner => "ask one of the partners",
            Code::SessionExists => "`pool status` shows it; nothing needs to be created",
            Code::DataDirectoryInUse => {
                "name an empty directory in the configuration, or move the old data away"
            }
            Code::TooBusy => "ask again in a moment",
            Code::Unanswered => "look at `pool status`, then ask again",
            Code::NotDesignated => "ask the pool's first partner",
            Code::FrontEnd => "ask one of the pool's servers",
            Code::NotPermitted => {
                "use an administrator's certificate: --trust DIR or BACKSTAY_TRUST"
            }
            Code::NoTopology => "publish a document: backstay topology publish FILE",
            Code::UnknownVersion => "`backstay topology history` lists the versions",
            Code::OlderVersion => "`backstay topology show` shows it",
            Code::DamagedCopy => "send it again; if that does not help, publish the document anew",
            Code::DocumentTooLarge => {
                "keep the document below 1 MiB, and the comment below 1000 characters"
            }
            Code::ForeignDocument => "check `deployment` in the document, and the addresses",
            Code::NotStore => {
                "ask the server that serves it: `backstay pool status` shows which one it is"
            }
            Code::StoreAway => "bring the pool back (`backstay pool status`), then publish again",
            Code::PublishInDoubt => {
                "publish it again: if it is there already, it is not published twice"
            }
            Code::NoAudit => "it keeps one as soon as it has a certificate: backstay join",
            Code::UnknownFrontEnd => {
                "add it to the pool in the topology, or to its front_ends in the servers' files"
            }
            Code::InitialiseFailed | Code::NotTaken => return None,
        })
    }

    /// The refusal with this code; `detail` is added to the sentence.
    pub fn refusal(self, detail: Option<String>) -> Refusal {
        let sentence = match detail {
            Some(detail) => format!("{}: {detail}", self.sentence()),
            None => self.sentence().to_owned(),
        };
        Refusal { code: self.as_str().to_owned(), sentence, hint: self.hint().map(str::to_owned) }
    }
}

/// The session's own refusal.
pub fn why(why: Why) -> Refusal {
    Refusal {
        code: why_code(why).to_owned(),
        sentence: why_sentence(why).to_owned(),
        hint: why_hint(why).map(str::to_owned),
    }
}

fn why_code(why: Why) -> &'static str {
    match why {
        Why::NotPrincipal => "not_principal",
        Why::AlreadyPrincipal => "already_principal",
        Why::NotMirrored => "not_mirrored",
        Why::MirrorNotStreaming => "mirror_not_streaming",
        Why::MirrorNotLevel => "mirror_not_level",
        Why::PrincipalServes => "principal_serves",
        Why::Suspended => "suspended",
        Why::NotSuspended => "not_suspended",
        Why::Busy => "busy",
        Why::NoData => "no_data",
        Why::NoSuchChange => "no_such_change",
        Why::NotAmnesiac => "not_amnesiac",
        Why::HasWitness => "has_witness",
        Why::NotAPartner => "not_a_partner",
        Why::PartnerAway => "partner_away",
        Why::NoMirror => "no_mirror",
        Why::Removed => "removed",
    }
}

fn why_sentence(why: Why) -> &'static str {
    match why {
        Why::NotPrincipal => "this server does not serve the pool",
        Why::AlreadyPrincipal => "this server serves the pool already",
        Why::NotMirrored => {
            "the pool runs exposed: the mirror does not hold every acknowledged commit"
        }
        Why::MirrorNotStreaming => "the mirror is not streaming",
        Why::MirrorNotLevel => "the mirror is too far behind for a short interruption",
        Why::PrincipalServes => "a principal serves the pool, so service must not be forced",
        Why::Suspended => "mirroring is suspended",
        Why::NotSuspended => "nothing is suspended here",
        Why::Busy => "another change of this session is going on",
        Why::NoData => "this server holds no data that could serve",
        Why::NoSuchChange => "that changes nothing: it is so already",
        Why::NotAmnesiac => "this member has its state and needs to learn nothing",
        Why::HasWitness => "the session has a witness: it decides, not the operator",
        Why::NotAPartner => "this member is a witness: it holds no data",
        Why::PartnerAway => "this cannot be changed while the mirror is away or behind",
        Why::NoMirror => "the pool has one server and no mirror",
        Why::Removed => "this server was removed from the pool, which the other one serves alone",
    }
}

fn why_hint(why: Why) -> Option<&'static str> {
    Some(match why {
        Why::NotPrincipal => "ask the principal: `pool status` shows which one it is",
        Why::NotMirrored => "wait until `pool status` says synchronized",
        Why::MirrorNotStreaming => "look at the mirror: `pool status` shows what it is doing",
        Why::MirrorNotLevel => "ask again when it has caught up",
        Why::PrincipalServes => "use a manual failover",
        Why::Suspended => "resume it first: `pool resume`",
        Why::Busy => "`pool status` shows it; ask again when it is over",
        Why::NoData => "force service on the other partner, or let this one copy the data first",
        Why::HasWitness => "bring the witness or the other partner back, or force service",
        Why::NotAPartner => "ask one of the partners",
        Why::PartnerAway => "bring the mirror back first; `pool status` tells when it is level",
        Why::NoMirror => "add a mirror to the pool first",
        Why::Removed => "ask the other server; to have a mirror here again, add it to the pool",
        Why::AlreadyPrincipal | Why::NotSuspended | Why::NoSuchChange | Why::NotAmnesiac => {
            return None;
        }
    })
}

/// Stable code and sentence of an obstacle to automatic failover.
pub fn obstacle(obstacle: Obstacle) -> (&'static str, &'static str) {
    match obstacle {
        Obstacle::NotServed => ("not_served", "nobody serves the pool"),
        Obstacle::NoMirror => ("no_mirror", "the pool has one server and no mirror"),
        Obstacle::NoWitness => (
            "no_witness",
            "the session has no witness, so nobody could decide that the principal is gone",
        ),
        Obstacle::WitnessSilent => ("witness_silent", "the witness does not answer"),
        Obstacle::MirrorSilent => ("mirror_silent", "the mirror's agent does not answer"),
        Obstacle::MirrorCannotSeeWitness => (
            "mirror_cannot_see_witness",
            "the mirror does not hear the witness, so it could not be elected",
        ),
        Obstacle::MirrorNotStreaming => ("mirror_not_streaming", "the mirror is not streaming"),
        Obstacle::Exposed => {
            ("exposed", "the pool runs exposed: the mirror may lack acknowledged commits")
        }
        Obstacle::Suspended => ("suspended", "mirroring is suspended by the operator"),
        Obstacle::MirrorDataInvalid => {
            ("mirror_data_invalid", "the mirror's data are being rewound or copied")
        }
        Obstacle::AskThePrincipal => {
            ("ask_the_principal", "this member is not the principal and does not know")
        }
    }
}

/// Stable code and sentence of an alarm.
pub fn alarm(alarm: Alarm) -> (&'static str, String) {
    match alarm {
        Alarm::WitnessLost => (
            "witness_lost",
            "the witness is lost: service goes on, but without automatic failover".to_owned(),
        ),
        Alarm::WitnessBack => ("witness_back", "the witness is back".to_owned()),
        Alarm::RecordsDiffer { id, .. } => (
            "records_differ",
            format!(
                "another member shows a different record of term {} revision {}: it was refused; \
                 keep all data and report this",
                id.term, id.revision
            ),
        ),
        Alarm::SideSuspended => (
            "side_suspended",
            "service was forced on the other side: this side waits for the choice of which data \
             to keep (`pool resume --discard`)"
                .to_owned(),
        ),
        Alarm::DataBehind { found, expected } => (
            "data_behind",
            format!(
                "this copy of the data ends at {found}, but had reached {expected}: an old backup \
                 was put in its place, or the disk lost writes; it is not served, but brought up \
                 to date from a principal that has everything"
            ),
        ),
        Alarm::StateRestored { .. } => (
            "state_restored",
            "the state directory was restored from an old copy: this member learns it anew"
                .to_owned(),
        ),
        Alarm::ForkMoved { announced, found } => (
            "fork_moved",
            format!(
                "the promotion forked at {found} instead of {announced}: the outcome of commits \
                 in doubt is unknown"
            ),
        ),
        Alarm::StorageFailing => {
            ("storage_failing", "a volume of this server does not take writes in time".to_owned())
        }
        Alarm::ServingForced => (
            "serving_forced",
            "service was forced: the pool serves without the agreement of the other members"
                .to_owned(),
        ),
    }
}

/// Stable code of a cause, and the cause as the end of a sentence.
pub fn cause(cause: Cause) -> (&'static str, &'static str) {
    match cause {
        Cause::Created => ("created", "the session was created"),
        Cause::Restarted => ("restarted", "the agent started"),
        Cause::PrincipalSilent => ("principal_silent", "the principal was silent"),
        Cause::PrincipalResigned => ("principal_resigned", "the principal resigned"),
        Cause::PostgresExited => ("postgres_exited", "its PostgreSQL exited"),
        Cause::PostgresUnhealthy => ("postgres_unhealthy", "its PostgreSQL did not answer"),
        Cause::LeaseLost => ("lease_lost", "its lease ran out"),
        Cause::HigherPromise => ("higher_promise", "a higher term was promised"),
        Cause::NewerRecord => ("newer_record", "a newer record was learnt"),
        Cause::Streams => ("streams", "it streams from the principal"),
        Cause::MirrorLost => ("mirror_lost", "the mirror was lost"),
        Cause::MirrorLevel => ("mirror_level", "the mirror holds everything"),
        Cause::OperatorAsked => ("operator_asked", "the operator asked for it"),
        Cause::ForcedService => ("forced_service", "the operator forced service"),
        Cause::WonElection => ("won_election", "it was elected"),
        Cause::PromotionFailed => ("promotion_failed", "its promotion failed"),
        Cause::HandoverFailed => ("handover_failed", "the other partner did not take over"),
        Cause::MirrorRemoved => ("mirror_removed", "the mirror was removed: this server is alone"),
        Cause::MirrorAdded => ("mirror_added", "a mirror was added"),
        Cause::WitnessChanged => ("witness_changed", "the witness was changed"),
        Cause::StateLost => ("state_lost", "its state is lost"),
        Cause::StateLearnt => ("state_learnt", "it learnt the state from the others"),
    }
}

/// The name of a role.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Witness => "witness",
        Role::Waiting => "waiting",
        Role::Mirror => "mirror",
        Role::Candidate => "candidate",
        Role::Becoming => "becoming",
        Role::Principal => "principal",
        Role::Amnesiac => "amnesiac",
        Role::Suspended => "suspended",
    }
}

/// The name of a phase.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Detected => "detected",
        Phase::Elected => "elected",
        Phase::Prepared => "prepared",
        Phase::Promoted => "promoted",
        Phase::Established => "established",
    }
}

/// Whether the pool would fail over by itself, in a sentence. Empty `obstacles`: it would.
pub fn automatic_failover(obstacles: &[Obstacle], estimate_ms: u64) -> String {
    let sentences: Vec<&str> = obstacles.iter().map(|found| obstacle(*found).1).collect();
    if sentences.is_empty() {
        format!(
            "armed: if the principal's host were lost now, writes would go on after about {}.{} s",
            estimate_ms / 1000,
            estimate_ms % 1000 / 100
        )
    } else {
        format!("not armed: {}", sentences.join("; "))
    }
}
