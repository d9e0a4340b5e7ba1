//! What `status` is asked with.

use std::path::PathBuf;

use crate::{fleet::Fleet, report::Output};

/// Checked options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// Where the record is kept of what was proven; without one, nothing is known of those who
    /// cannot tell what they run.
    pub state: Option<PathBuf>,
    /// What commands need besides, so that they look there.
    pub flag: String,
    /// What stdout carries; `Screen` is a line for each instance.
    pub output: Output,
    /// Nothing on stdout but what does not agree.
    pub quiet: bool,
}
