//! The built binary as people and scripts meet it.

mod demo;
mod place;
mod usage;
