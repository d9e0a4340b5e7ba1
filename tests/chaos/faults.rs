//! Runs fleets of real processes under random faults, and compares every claim of `hello` with the
//! truth.
//!
//! `faults HELLO ROUNDS SEED` runs the rounds SEED, SEED + 1, ... To repeat one round, use ROUNDS 1
//! and its own seed.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program for people, and rogues that end as they like"
)]

mod check;
mod claims;
mod command;
mod inject;
mod journal;
mod live;
mod mode;
mod plan;
mod random;
mod rogue;
mod round;
mod tally;
mod world;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tally::Tally;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["rogue", ..] => rogue::run(&arguments).is_some(),
        ["thief", ..] => rogue::thief(&arguments).is_some(),
        ["check", file] => rogue::check(Path::new(file)),
        ["ask", url] => {
            // Prints nothing if nothing answers, as some programs do.
            if let Some(answer) = world::ask(url, "/", Duration::from_secs(2)) {
                print!("{}", answer.body);
            }
            true
        }
        [hello, rounds, seed] => match (rounds.parse(), seed.parse()) {
            (Ok(rounds), Ok(seed)) => return all(Path::new(hello), rounds, seed),
            _ => usage(),
        },
        _ => usage(),
    };
    if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage() -> bool {
    eprintln!("usage: tests/faults [ROUNDS] [SEED]");
    false
}

/// Runs rounds concurrently, since a round mostly waits.
fn workers() -> usize {
    thread::available_parallelism().map_or(2, |n| (n.get() + 1).clamp(2, 4))
}

fn all(hello: &Path, rounds: u64, seed: u64) -> ExitCode {
    let base = match hello
        .canonicalize()
        .and_then(|hello| Ok((hello, folder()?)))
    {
        Ok(base) => base,
        Err(e) => {
            eprintln!("cannot begin: {e}");
            return ExitCode::FAILURE;
        }
    };
    let (hello, base) = base;
    let (next, total, began) = (
        AtomicU64::new(0),
        Mutex::new((Tally::default(), Vec::new())),
        Instant::now(),
    );
    thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                while let Some(number) =
                    Some(next.fetch_add(1, Ordering::SeqCst)).filter(|n| *n < rounds)
                {
                    let (seed, found) = (seed + number, run_round(&hello, &base, seed + number));
                    if let Ok(mut total) = total.lock() {
                        if !found.found.is_empty() {
                            total.1.push(seed);
                        }
                        total.0.add(found);
                    }
                }
            });
        }
    });
    let _ = std::fs::remove_dir(&base);
    let (tally, failed) = total.into_inner().unwrap_or_default();
    summary(&tally, &failed, rounds, seed, began.elapsed())
}

fn folder() -> std::io::Result<PathBuf> {
    let base = std::env::temp_dir().join(format!("hello-faults-{}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    base.canonicalize()
}

/// Runs one round. Its folder remains after a failure.
fn run_round(hello: &Path, base: &Path, seed: u64) -> Tally {
    let dir = base.join(format!("round-{seed}"));
    if let Err(e) = std::fs::create_dir(&dir) {
        eprintln!("{}: {e}", dir.display());
    }
    let tally = round::round(seed, &dir, hello);
    if tally.found.is_empty() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    for found in &tally.found {
        println!(
            "FAILED seed {seed}, {}: {} ({})",
            found.kind, found.text, found.claim
        );
    }
    if !tally.found.is_empty() {
        println!(
            "       repeat with: tests/faults 1 {seed}    its folder: {}",
            dir.display()
        );
    }
    tally
}

fn counts<K: AsRef<str>>(counts: &BTreeMap<K, u64>) -> String {
    counts
        .iter()
        .map(|(name, count)| format!("{} {count}", name.as_ref()))
        .collect::<Vec<_>>()
        .join(", ")
}

fn summary(tally: &Tally, failed: &[u64], rounds: u64, seed: u64, took: Duration) -> ExitCode {
    println!(
        "{rounds} rounds of seed {seed} in {:.0} s",
        took.as_secs_f64()
    );
    println!(
        "{} faults: {}",
        tally.faults.values().sum::<u64>(),
        counts(&tally.faults)
    );
    println!("exit codes: {}", counts(&tally.exits));
    println!("{} claims checked:", tally.total());
    tally
        .claims
        .iter()
        .for_each(|(name, count)| println!("  {count:>6} {name}"));
    let (hangs, leftovers, tester) = (
        tally.of(|k| k == "hang"),
        tally.of(|k| k == "leftover"),
        tally.of(|k| k == "tester"),
    );
    println!(
        "{} false claims, {hangs} hangs, {leftovers} leftovers, {tester} rounds that could not be run",
        tally.found.len() - hangs - leftovers - tester
    );
    let mut failed = failed.to_vec();
    failed.sort_unstable();
    failed
        .iter()
        .for_each(|seed| println!("failed: tests/faults 1 {seed}"));
    println!(
        "{} passed, {} failed",
        rounds - failed.len() as u64,
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
