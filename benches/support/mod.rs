//! What the benches share: arguments, numbers and their bars, what a whole process took, and a fleet of real servers.
#![allow(dead_code, reason = "each bench uses its part")]

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    thread::available_parallelism,
};

pub(crate) mod ask;
pub(crate) mod fleet;
pub(crate) mod whole;

/// What a bench was asked for.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) sizes: Vec<usize>,
    /// So often both sides are measured, one after the other.
    pub(crate) pairs: usize,
    /// How long one load lasts.
    pub(crate) seconds: u64,
    /// Another build of `hello`, to compare this one with.
    pub(crate) before: Option<PathBuf>,
}

impl Args {
    /// Of the command line; `all` are the sizes of `--all`, and those up to `usual` the ones without a word.
    ///
    /// # Errors
    /// What was not understood.
    pub(crate) fn of(all: &[usize], usual: usize) -> Result<Self, String> {
        let mut args = Self {
            sizes: Vec::new(),
            pairs: 5,
            seconds: 3,
            before: None,
        };
        // What this process was handed is not handed on: servers are looked at by their descriptors.
        close_fds::set_fds_cloexec(3, &[]);
        let (mut words, mut by_cargo) = (std::env::args().skip(1), false);
        while let Some(word) = words.next() {
            if word == "--dir" {
                fleet::lie_in(words.next().ok_or("--dir needs a directory")?.into());
                continue;
            }
            if word == "--before" {
                args.before = Some(words.next().ok_or("--before needs an executable")?.into());
                continue;
            }
            let mut number = || {
                words
                    .next()
                    .and_then(|n| n.parse().ok())
                    .filter(|n| *n > 0)
                    .ok_or(format!("{word} needs a number"))
            };
            match word.as_str() {
                "--bench" => by_cargo = true,
                "--all" => args.sizes = all.to_vec(),
                "--pairs" => args.pairs = number()?,
                "--seconds" => args.seconds = number()? as u64,
                size => {
                    args.sizes.push(size.parse().map_err(|_| format!("`{size}`? It takes sizes, --all, --pairs N, --seconds N, --dir DIR and --before EXE"))?)
                }
            }
        }
        if !by_cargo {
            return Err("this is a measurement and no test: run it by `cargo bench`".into());
        }
        if args.sizes.is_empty() {
            args.sizes.extend(all.iter().filter(|n| **n <= usual));
        }
        Ok(args)
    }
}

/// Middle and ends of some numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "something was measured");
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self {
            median: f64::midpoint(low, high),
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        }
    }

    /// Of pairs, each divided on its own: a machine that drifts hits both of a pair.
    pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Self {
        Self::of(ours.iter().zip(theirs).map(|(a, b)| a / b))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} to {})",
            digits(self.median),
            digits(self.min),
            digits(self.max)
        )
    }
}

/// Three digits are all that such a measurement has.
pub(crate) fn digits(value: f64) -> String {
    let after = if value.abs() >= 100.0 {
        0
    } else {
        usize::from(value.abs() < 10.0) + 1
    };
    format!("{value:.after$}")
}

/// Says whether a bar holds: `value` is at most `limit`.
pub(crate) fn at_most(what: &str, limit: f64, value: f64) {
    bar(what, limit, value, value <= limit);
}

/// Says whether a bar holds: `value` is at least `limit`.
pub(crate) fn at_least(what: &str, limit: f64, value: f64) {
    bar(what, limit, value, value >= limit);
}

fn bar(what: &str, limit: f64, value: f64, holds: bool) {
    println!(
        "- {what}: bar {limit}: {} {}",
        digits(value),
        if holds { "ok" } else { "MISSED" }
    );
}

/// The head and the rule of a table.
pub(crate) fn table(title: &str, head: &[&str]) {
    println!("\n### {title}\n");
    row(head);
    row(&vec!["---"; head.len()]);
}

pub(crate) fn row<S: AsRef<str>>(cells: &[S]) {
    println!(
        "| {} |",
        cells
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(" | ")
    );
}

/// The file of a program; where it is missing that is said, with Debian's name for it.
pub(crate) fn program(name: &str, package: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        println!("- missing: {name} (Debian's package {package}); its rows are skipped");
    }
    found
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    path.split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
}

/// What was measured on, and with which versions.
pub(crate) fn machine(dir: &Path, programs: &[(&str, &[&str])]) {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory, kernel) = (
        text("/proc/cpuinfo"),
        text("/proc/meminfo"),
        text("/proc/sys/kernel/osrelease"),
    );
    let after = |all: &str, key: &str| {
        all.lines()
            .find_map(|l| l.strip_prefix(key))
            .map(|v| v.trim_start_matches([':', ' ', '\t']).to_owned())
            .unwrap_or_default()
    };
    let gib = after(&memory, "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or_default()
        / f64::from(1 << 20);
    println!(
        "- machine: {} cores, {}, {gib:.0} GiB, Linux {}, load before {}",
        cores(),
        after(&cpus, "model name"),
        kernel.trim(),
        text("/proc/loadavg").trim()
    );
    println!("- files in: {} ({})", dir.display(), fleet::filesystem(dir));
    println!("- hello {}", env!("CARGO_PKG_VERSION"));
    for (name, args) in programs {
        if let Some(output) =
            find(name).and_then(|file| Command::new(file).args(*args).output().ok())
        {
            // Some tell it on stderr, and some as a mistake.
            let said = [output.stdout, output.stderr].concat();
            println!(
                "- {}",
                String::from_utf8_lossy(&said)
                    .lines()
                    .find(|l| !l.is_empty())
                    .unwrap_or(name)
            );
        }
    }
}

pub(crate) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}
