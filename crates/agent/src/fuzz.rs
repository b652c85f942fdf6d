//! A door to the reader of the ledger's file, for `cargo xtask fuzz protocol`.
//!
//! Whatever lies in the file, reading it ends, and says either what is proven or that it is
//! damaged.

use protocol::convert;

use crate::ledger::log::{SECTOR, decode, encode, prove};

/// Reads `case` as a ledger's file: once as it is, and once with every checksum put right, as only
/// somebody who means harm would write it.
///
/// # Panics
/// If the reader does, or if what was read is not the same when it is written again.
pub fn ledger(case: &[u8]) {
    read(case);
    let mut proven = case.to_vec();
    proven.chunks_exact_mut(SECTOR).filter(|sector| sector[4] != 0).for_each(prove);
    read(&proven);
}

fn read(file: &[u8]) {
    let Ok(contents) = decode(file, 1) else { return };
    let mut again = Vec::new();
    for (number, batch) in (1..).zip(&contents.batches) {
        again.extend(encode(number, batch));
        for entry in batch {
            let _ = convert::durable_from_bytes(&entry.state).is_ok();
        }
    }
    if !again.is_empty() {
        assert_eq!(decode(&again, 1).map(|again| again.batches), Ok(contents.batches));
    }
}
