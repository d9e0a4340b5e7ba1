//! What an instance serves.

pub(crate) mod answers;
pub(crate) mod confirm;
pub(crate) mod lanes;
pub(crate) mod lost;
pub(crate) mod old_workers;
pub(crate) mod readings;
pub(crate) mod samples;
pub(crate) mod strangers;
pub(crate) mod workers;
