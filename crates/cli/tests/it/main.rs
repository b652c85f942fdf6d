//! The built binary as people and scripts meet it.
#![allow(clippy::unwrap_used)]

mod demo;
mod place;
mod usage;
