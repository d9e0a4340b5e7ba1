//! Real `hello serve` processes, real signals, real files.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod broadcast;
mod house;
mod load;
mod serve;
mod status;
mod support;
