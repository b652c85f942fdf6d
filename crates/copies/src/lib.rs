//! A process's own copies of the published document: how they lie on its disk, and which of them
//! it may use.
//!
//! Agents, witnesses and Front Ends work from their own copy, so that they start without anybody
//! else. A copy that is torn or altered is never used: its digests are looked at whenever it is
//! read. Nothing here knows a socket; who asks whom is the processes' own affair.

mod shelf;
mod usable;

use protocol::admin::{DOCUMENT_LIMIT, TopologyCopy, TopologyFinding, TopologyHeader};
use sha2::{Digest as _, Sha256};
use topology::{Diagnostic, Lines};

pub use shelf::{Shelf, ShelfError};
pub use usable::{Unusable, Usable, check};

/// SHA-256, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new version of the document.
pub fn seal(
    version: u64,
    published_ms: u64,
    author: &str,
    comment: &str,
    document: String,
) -> TopologyCopy {
    let header = TopologyHeader {
        version,
        published_ms,
        author: author.to_owned(),
        comment: comment.to_owned(),
        digest: digest(document.as_bytes()),
    };
    TopologyCopy { header, document }
}

/// The document is the one that the header speaks of.
pub fn is_whole(copy: &TopologyCopy) -> bool {
    copy.header.version > 0
        && copy.document.len() <= DOCUMENT_LIMIT
        && digest(copy.document.as_bytes()) == copy.header.digest
}

/// What the checks have found in `text`, as it is told to others.
pub fn findings(text: &str, diagnostics: &[Diagnostic]) -> Vec<TopologyFinding> {
    let lines = Lines::new(text);
    let told = diagnostics.iter().map(|found| {
        let at = found.place.as_ref().map(|place| lines.point(place.start));
        TopologyFinding {
            rule: found.rule.id.to_owned(),
            is_error: found.is_error(),
            message: found.message.clone(),
            cause: found.cause.clone(),
            remedy: found.remedy.clone(),
            line: at.and_then(|at| u32::try_from(at.line).ok()),
            column: at.and_then(|at| u32::try_from(at.column).ok()),
        }
    });
    told.collect()
}
