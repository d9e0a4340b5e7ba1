//! The coordinator is killed, stopped, or gets an error at each of its effects. strace does so from
//! outside, without code in the product.

mod failed;
mod full;
mod killed;
mod stopped;
mod testbed;
mod trace;
