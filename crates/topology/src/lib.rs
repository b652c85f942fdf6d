//! The topology of a deployment: one document that people write, and everything that follows.
//!
//! `examine` reads and checks a text and tells all mistakes at once, `render` shows them, `derive`
//! says what each process needs, `plan` what publishing would change, `draft` and `edit` write.
//! Everything is pure: text and values in, text and values out. No file is opened and no server
//! asked; what only servers know is checked when a document is published.

mod catalogue;
mod check;
pub mod derive;
mod diagnostic;
pub mod document;
pub mod draft;
pub mod edit;
mod place;
pub mod plan;
mod read;
pub mod render;
pub mod resolve;

pub use catalogue::{APPLICATIONS, Brought, CATALOGUE, Source, brought_to};
pub use check::{Checked, Examined, examine, rules};
pub use diagnostic::{Diagnostic, Family, Related, Rule, Severity};
pub use document::{Document, schema};
pub use place::{Lines, Placed, Point, Span, Table};
