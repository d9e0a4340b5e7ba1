//! A program, and what others say of it: the sources of most keys.

use super::{help::Help, program::Program, service::Services};

/// A program, and what others say of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) program: &'a Program<'a>,
    pub(super) services: &'a Services,
    pub(super) help: &'a Help,
}
