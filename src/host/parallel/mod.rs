//! Does many things at once.

pub(crate) mod admission;
pub(crate) mod cores;
pub(crate) mod fan_out;
pub(crate) mod par_map;
