//! Taking over a PostgreSQL that is there already, with its data, and giving it back.
//!
//! `look` only looks: what it finds is shown, and judged. `Taking` does it, each step so that it
//! can be repeated, and `give_back` undoes it from whatever was reached: the manifest is written
//! before anything is touched. The data are never copied, moved or rewritten. An adopted data
//! directory is the first principal's, never a mirror's: a session begins with it as the data that
//! count, and no other path of this program makes a new cluster where a manifest lies.

mod findings;
mod found;
mod give_back;
mod look;
mod manifest;
mod owner;
mod take;

use std::path::{Path, PathBuf};

pub use findings::{Agent, Finding, Level, judge};
pub use found::{Changed, Found, Slot};
pub use give_back::{Left, drop_roles, give_back, lock_file, start_again, stop_ours};
pub use look::{Place, look};
pub use manifest::{Manifest, Stage};
pub use owner::Owner;
pub use take::Taking;

use super::control::Control;
use super::instance::Instance;

/// Everything about an adoption is in this folder of the files directory.
const FOLDER: &str = "adopted";

pub fn folder(files_dir: &Path) -> PathBuf {
    files_dir.join(FOLDER)
}

/// The configuration that the adopted server had, for Backstay's own to include.
pub fn former_config(files_dir: &Path) -> PathBuf {
    folder(files_dir).join("postgresql.conf")
}

/// The former maps of users.
pub fn former_idents(files_dir: &Path) -> PathBuf {
    folder(files_dir).join("pg_ident.conf")
}

/// A manifest lies there: the data are somebody's, and are never made anew.
pub fn is_adopted(instance: &Instance) -> bool {
    Manifest::path(&instance.files_dir).exists()
}

/// The adoption has come so far that a session may begin with these data, and none has: nobody has
/// written anything since they were taken.
pub fn is_taken(instance: &Instance) -> bool {
    let Ok(Some(manifest)) = Manifest::read(&instance.files_dir) else { return false };
    let Ok(control) = Control::read(instance) else { return false };
    manifest.stage == Stage::Taken && manifest.taken_at == Some(control.checkpoint.to_string())
}
