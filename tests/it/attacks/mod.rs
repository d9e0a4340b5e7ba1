//! Another user attacks root's runs in real races, with hundreds of attempts at full length.
//!
//! Each test asserts that its race was run. It counts attacks that were in place between two points
//! of a run, or runs that met one. An attack outside of its window would prove nothing.

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
