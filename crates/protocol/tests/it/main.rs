//! The bytes between processes: what they are, that they survive the way there and back, and that
//! no bytes whatever make a reader panic.

mod any;
mod bytes;
mod golden;
