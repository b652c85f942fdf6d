//! The ledger's file: an append-only log of batches in sectors that each prove themselves.
//!
//! A batch is the set of states that one flush makes durable. It is cut into sectors of 512 bytes,
//! each with the number of its batch, its place in the batch and a checksum. The file is zeroed and
//! flushed before it is used, so an append changes no metadata and costs one `fdatasync`. A batch
//! is written only after the one before it is durable. Therefore:
//! - a sector of zeros in the *last* batch was not written when the machine failed: nobody was ever
//!   told of that batch, and it does not count;
//! - anything else that does not fit is damage. The file then proves nothing, and its owner must
//!   treat its state as lost (R10).

/// A disk writes so many bytes entirely or not at all; PostgreSQL trusts in the same.
pub const SECTOR: usize = 512;
const HEADER: usize = 24;
const BODY: usize = SECTOR - HEADER;
const MAGIC: u32 = 0x4261_4c31;

/// One session's state in a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub session: String,
    /// The stored form of its durable state.
    pub state: Vec<u8>,
}

/// What a file holds.
#[derive(PartialEq, Eq, Debug)]
pub struct Contents {
    /// Batches in the order in which they were written.
    pub batches: Vec<Vec<Entry>>,
    /// The last batch was not completely written, and does not count.
    pub torn: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    #[error("it has been cut short")]
    CutShort,
    #[error("the sector at byte {0} was altered")]
    Altered(usize),
    #[error("the sector at byte {0} is out of order")]
    OutOfOrder(usize),
    #[error("the batch that ends at byte {0} is not complete")]
    Incomplete(usize),
    #[error("the batch that ends at byte {0} cannot be read")]
    Undecodable(usize),
}

struct Header {
    batch: u64,
    place: u16,
    count: u16,
    used: u16,
}

/// The sectors of one batch.
pub fn encode(batch: u64, entries: &[Entry]) -> Vec<u8> {
    let mut content = Vec::new();
    for Entry { session, state } in entries {
        for part in [session.as_bytes(), state] {
            let length = u32::try_from(part.len()).expect("a state is far below 4 GiB");
            content.extend_from_slice(&length.to_le_bytes());
            content.extend_from_slice(part);
        }
    }
    let pieces: Vec<&[u8]> = content.chunks(BODY).collect();
    let count = u16::try_from(pieces.len()).expect("batches are bounded by the writer");
    let mut sectors = vec![0; pieces.len() * SECTOR];
    for (place, (piece, sector)) in pieces.iter().zip(sectors.chunks_exact_mut(SECTOR)).enumerate()
    {
        let used = piece.len() as u16;
        sector[4..8].copy_from_slice(&MAGIC.to_le_bytes());
        sector[8..16].copy_from_slice(&batch.to_le_bytes());
        sector[16..18].copy_from_slice(&(place as u16).to_le_bytes());
        sector[18..20].copy_from_slice(&count.to_le_bytes());
        sector[20..22].copy_from_slice(&used.to_le_bytes());
        sector[HEADER..HEADER + piece.len()].copy_from_slice(piece);
        prove(sector);
    }
    sectors
}

/// Puts the checksum into a sector.
pub fn prove(sector: &mut [u8]) {
    let checksum = crc32c::crc32c(&sector[4..]);
    sector[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The most bytes of entries that fit into one batch.
pub const BATCH_LIMIT: usize = BODY * (u16::MAX as usize - 1);

/// What `bytes`, a whole file, holds. Batches are numbered from `first`.
///
/// # Errors
/// The file is damaged: it proves nothing.
pub fn decode(bytes: &[u8], first: u64) -> Result<Contents, Damage> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(SECTOR) {
        return Err(Damage::CutShort);
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / SECTOR + 1);
    let sectors: Vec<&[u8]> = bytes.chunks_exact(SECTOR).take(end).collect();
    let mut contents = Contents { batches: Vec::new(), torn: false };
    let mut at = 0;
    while at < sectors.len() {
        let batch = first + contents.batches.len() as u64;
        let rest = &sectors[at..];
        // Any written sector of the batch tells how many it has: the first ones may be missing.
        let Some(told) = rest.iter().position(|sector| !is_zero(sector)) else { break };
        let header = read(rest[told]).ok_or(Damage::Altered((at + told) * SECTOR))?;
        let count = usize::from(header.count);
        let last = at + count >= sectors.len();
        if header.batch != batch || told >= count || usize::from(header.place) != told {
            return Err(Damage::OutOfOrder((at + told) * SECTOR));
        }
        match collect(&rest[..count.min(rest.len())], batch, count, at)? {
            Some(content) => contents
                .batches
                .push(entries(&content).ok_or(Damage::Undecodable((at + count) * SECTOR))?),
            None if last => contents.torn = true,
            None => return Err(Damage::Incomplete((at + count) * SECTOR)),
        }
        at += count;
    }
    if contents.batches.is_empty() && !contents.torn {
        return Err(Damage::CutShort);
    }
    Ok(contents)
}

/// The content of a batch's sectors; `None` if some were never written.
fn collect(
    sectors: &[&[u8]],
    batch: u64,
    count: usize,
    at: usize,
) -> Result<Option<Vec<u8>>, Damage> {
    let mut content = Vec::with_capacity(count * BODY);
    let mut missing = sectors.len() < count;
    for (place, sector) in sectors.iter().enumerate() {
        if is_zero(sector) {
            missing = true;
            continue;
        }
        let byte = (at + place) * SECTOR;
        let header = read(sector).ok_or(Damage::Altered(byte))?;
        if header.batch != batch
            || usize::from(header.place) != place
            || usize::from(header.count) != count
        {
            return Err(Damage::OutOfOrder(byte));
        }
        content.extend_from_slice(&sector[HEADER..HEADER + usize::from(header.used)]);
    }
    Ok((!missing).then_some(content))
}

fn is_zero(sector: &[u8]) -> bool {
    sector.iter().all(|byte| *byte == 0)
}

/// The header of a sector that proves itself.
fn read(sector: &[u8]) -> Option<Header> {
    let (checksum, rest) = sector.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (magic, rest) = rest.split_first_chunk::<4>()?;
    let (batch, rest) = rest.split_first_chunk::<8>()?;
    let (place, rest) = rest.split_first_chunk::<2>()?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    let (used, _) = rest.split_first_chunk::<2>()?;
    let header = Header {
        batch: u64::from_le_bytes(*batch),
        place: u16::from_le_bytes(*place),
        count: u16::from_le_bytes(*count),
        used: u16::from_le_bytes(*used),
    };
    let sound = u32::from_le_bytes(*magic) == MAGIC
        && header.place < header.count
        && usize::from(header.used) <= BODY;
    sound.then_some(header)
}

fn entries(mut content: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !content.is_empty() {
        let session = take(&mut content)?;
        let state = take(&mut content)?;
        let session = std::str::from_utf8(session).ok()?.to_owned();
        entries.push(Entry { session, state: state.to_vec() });
    }
    Some(entries)
}

fn take<'a>(content: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = content.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, rest) = rest.split_at_checked(length)?;
    *content = rest;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(session: &str, length: usize) -> Entry {
        Entry { session: session.to_owned(), state: vec![7; length] }
    }

    fn file() -> (Vec<u8>, Vec<Vec<Entry>>) {
        let batches = vec![
            vec![entry("a", 30)],
            vec![entry("a", 30), entry("b", 1500)],
            vec![entry("b", 900)],
        ];
        let mut bytes: Vec<u8> = (0..).zip(&batches).flat_map(|(n, b)| encode(n, b)).collect();
        bytes.resize(bytes.len() + 8 * SECTOR, 0);
        (bytes, batches)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, batches) = file();
        assert_eq!(decode(&bytes, 0), Ok(Contents { batches, torn: false }));
    }

    #[test]
    fn any_altered_bit_is_noticed() {
        let (bytes, _) = file();
        let written = bytes.len() - 8 * SECTOR;
        for at in (0..written).step_by(7) {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << (at % 8);
            assert!(decode(&altered, 0).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_last_batch_that_was_half_written_does_not_count() {
        let (bytes, batches) = file();
        let sectors: Vec<usize> = (0..bytes.len() / SECTOR - 8).collect();
        let last: Vec<usize> = sectors[sectors.len() - 2..].to_vec();
        for lost in &last {
            let mut torn = bytes.clone();
            torn[lost * SECTOR..(lost + 1) * SECTOR].fill(0);
            let contents = decode(&torn, 0).unwrap();
            assert_eq!((contents.batches.as_slice(), contents.torn), (&batches[..2], true));
        }
    }

    #[test]
    fn a_sector_lost_from_the_middle_is_damage() {
        let (bytes, _) = file();
        let before_last = bytes.len() / SECTOR - 8 - 2;
        for lost in 0..before_last {
            let mut damaged = bytes.clone();
            damaged[lost * SECTOR..(lost + 1) * SECTOR].fill(0);
            assert!(decode(&damaged, 0).is_err(), "sector {lost}");
        }
    }

    #[test]
    fn an_empty_or_cut_file_is_damage() {
        let (bytes, _) = file();
        assert_eq!(decode(&[], 0), Err(Damage::CutShort));
        assert_eq!(decode(&[0; SECTOR * 4], 0), Err(Damage::CutShort));
        assert_eq!(decode(&bytes[..bytes.len() - 1], 0), Err(Damage::CutShort));
    }
}
