//! False claims, by kind: the report of `hello` is compared with the truth of real processes.

mod alive;
mod earlier_runs;
mod empty_proofs;
mod files;
mod killed_runs;
mod limits;
mod listeners;
mod mixed_answers;
mod rollback;
pub(crate) mod server;
mod workers;
