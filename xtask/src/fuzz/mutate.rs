//! Small changes to bytes: the kinds that break readers of messages.

/// Enough to reach every limit of a reader.
const LARGEST: usize = 256 * 1024;

/// Words that mean something to a reader of statements.
const WORDS: [&[u8]; 24] = [
    b"BEGIN",
    b"COMMIT",
    b"ROLLBACK",
    b" AND CHAIN",
    b"COPY t FROM STDIN",
    b"SET ",
    b" = off",
    b"synchronous_commit",
    b"DISCARD ALL",
    b"PREPARE TRANSACTION 'x'",
    b"SELECT ",
    b"INSERT INTO t",
    b"set_config('a.b', $1, false)",
    b"--",
    b"/*",
    b"*/",
    b"$$",
    b"$a$",
    b"E'\\",
    b"U&\"",
    b"'",
    b"\"",
    b";",
    b"\0",
];

/// Lengths that lie.
const LIES: [u32; 12] = [0, 1, 3, 4, 5, 8, 255, 65_535, 1 << 20, 1 << 30, 0x7fff_ffff, u32::MAX];

/// Numbers that look random and are the same for the same seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Some changes to `case`, with parts of `other`.
pub fn mutate(chance: &mut Chance, case: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=chance.below(6) {
        once(chance, case, other);
    }
    case.truncate(LARGEST);
}

fn once(chance: &mut Chance, case: &mut Vec<u8>, other: &[u8]) {
    let at = chance.below(case.len() + 1);
    let end = (at + 1 + chance.below(16)).min(case.len());
    match chance.below(10) {
        0 if at < case.len() => case[at] ^= 1 << chance.below(8),
        1 if at < case.len() => {
            case[at] = *chance.pick(&[0, 1, 0x7f, 0x80, 0xff, b'\'', b'\\', b',', b'=']);
        }
        2 => {
            let bytes: Vec<u8> = (0..=chance.below(8)).map(|_| chance.next() as u8).collect();
            insert(case, at, &bytes);
        }
        3 => drop(case.drain(at..end)),
        4 => case.truncate(at),
        5 => {
            let word: &[u8] = WORDS[chance.below(WORDS.len())];
            insert(case, at, word);
        }
        6 if !other.is_empty() => {
            let from = chance.below(other.len());
            let part = &other[from..(from + 1 + chance.below(200)).min(other.len())];
            insert(case, at, part);
        }
        7 => {
            let part = case[at..end].to_vec();
            let most = if chance.below(1_000) == 0 { 20_000 } else { 8 };
            insert(case, at, &part.repeat(chance.below(most)));
        }
        8 => lie(chance, case, at),
        _move => {
            let part: Vec<u8> = case.drain(at..end).collect();
            let to = chance.below(case.len() + 1);
            insert(case, to, &part);
        }
    }
}

fn insert(case: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    case.splice(at..at, bytes.iter().copied());
}

/// Changes a length: that of a message if there are any, or four bytes anywhere.
fn lie(chance: &mut Chance, case: &mut [u8], at: usize) {
    let mut borders = Vec::new();
    let mut border = 0;
    while let Ok(Some(frame)) = wire::frame::split(&case[border..], LARGEST) {
        borders.push(border + 1);
        border += frame.size();
    }
    let at = if borders.is_empty() || chance.below(4) == 0 { at } else { *chance.pick(&borders) };
    let Some(length) = case.get_mut(at..at + 4).and_then(|four| four.first_chunk_mut::<4>()) else {
        return;
    };
    let truth = u32::from_be_bytes(*length);
    let told = match chance.below(3) {
        0 => truth.wrapping_add(1),
        1 => truth.wrapping_sub(1),
        _lie => *chance.pick(&LIES),
    };
    *length = told.to_be_bytes();
}
