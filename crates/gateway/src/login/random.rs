//! Random bytes for nonces, salts and keys, from the kernel.
//!
//! The pure crates take them as arguments; here is the only place of the log-in that makes them.

use rustix::rand::{GetRandomFlags, getrandom};

pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    assert_eq!(filled, Ok(N), "the kernel gives up to 256 random bytes at once");
    bytes
}
