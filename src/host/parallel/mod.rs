//! Does many things at once.

pub(crate) mod at_once;
pub(crate) mod crew;
pub(crate) mod turns;
