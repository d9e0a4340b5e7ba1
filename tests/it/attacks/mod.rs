//! Another user attacks root's runs: as a user of its own, against real races, in hundreds of tries at full length.
//!
//! Each test says that its race was run: it counts how often the attack was in place between two points of a run, or how
//! often a run has met it. An attack that never came into its window would prove nothing.

mod container;
mod ground;
mod identity;
mod keyring;
mod links;
mod locks;
mod notes;
mod paths;
mod sweep;
mod terminal;
mod view;
