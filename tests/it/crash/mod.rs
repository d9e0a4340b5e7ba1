//! The coordinator is killed, stopped, or gets an error at each of its effects, or waits for a slow
//! disk. strace does so from outside, without code in the product.

mod failed;
mod full;
mod killed;
mod slow;
mod stopped;
mod testbed;
mod trace;
