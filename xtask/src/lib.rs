//! The chores behind `cargo xtask`, as a library so that the tidy checks are an ordinary test.
//!
//! Nothing here is shipped. Printing happens in `output`, reading a clock in `clock`, as
//! everywhere else in this repository.

pub mod bench;
pub mod ci;
pub mod clock;
pub mod fuzz;
pub mod model;
pub mod output;
pub mod postgres;
pub mod prepare;
pub mod run;
pub mod tidy;
pub mod versions;

use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where Cargo puts what it builds; chores keep their own files there too.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}
