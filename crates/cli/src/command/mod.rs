//! The commands: one file per noun. A command asks members, decides nothing, and tells the truth
//! about what came of it.

pub mod audit;
pub mod authority;
pub mod demo;
pub mod join;
pub mod pool;
pub mod process;
pub mod server;
pub mod topology;
