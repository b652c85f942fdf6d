//! The core in its simulated world: scenarios, the model check, and the mutants that it must kill.

mod model;
mod mutants;
mod scenarios;
