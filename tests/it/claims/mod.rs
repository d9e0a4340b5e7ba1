//! False claims, each by the kind of what was claimed: what `hello` says of real processes is held against
//! what they say themselves.

mod alive;
mod earlier_runs;
mod empty_proofs;
mod files;
mod limits;
mod listeners;
mod mixed_answers;
mod rollback;
pub(crate) mod server;
mod workers;
