//! The coordinator is killed, stopped, or told that a call has failed, at each of its effects: from outside, by strace, so that the product has no part in it.

mod failed;
mod full;
mod killed;
mod stopped;
mod testbed;
mod trace;
