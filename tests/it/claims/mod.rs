//! False claims, each by the kind of what was claimed: what `hello` says of real processes is held against
//! what they say themselves.

mod alive;
mod back;
mod earlier;
mod files;
mod limits;
mod listeners;
pub(crate) mod server;
mod turns;
mod unseen;
mod workers;
