//! The Front End's own copy of the published document.
//!
//! A Front End whose file names no pool works from its copy: it has it on its disk, so it starts
//! without anybody else, and asks the partners of the store's pool for newer ones (`pull`). When
//! the pool's servers change, they are followed instead; other changes count from the next start,
//! which a second process of this Front End can make without its clients noticing.

mod keeper;
mod parts;
mod pull;
#[cfg(test)]
mod tests;

pub use keeper::Keeper;
