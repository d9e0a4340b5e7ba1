//! The survey, in process and without a probe, against `pgrep` as a whole process.
//!
//! It finds all processes of a group, their sockets, configs and signal masks; a group that says nothing can be seen is not asked anything.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what it measures, and fails by ending"
)]

use std::{process::ExitCode, sync::Arc, time::Instant};

use hello::{
    fleet::Fleet as Groups,
    host::{Host, Intent, SurveyRequest},
};

use self::support::{
    Args, Spread, at_most,
    fleet::{Configs, Fleet, write},
    machine, program, row, table, whole,
};

#[path = "../support/mod.rs"]
mod support;

const SIZES: &[usize] = &[1000, 10_000];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == whole::ROLE) {
        return whole::role(&words[1..]);
    }
    let args = match Args::of(SIZES, 10_000) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    machine(
        support::fleet::folder().path(),
        &[("pgrep", &["--version"])],
    );
    let pgrep = program("pgrep", "procps").is_some();
    for n in args.sizes {
        pairs(n, args.pairs, pgrep);
    }
    ExitCode::SUCCESS
}

fn pairs(n: usize, pairs: usize, pgrep: bool) {
    let fleet = Fleet::start(n, Configs::Shared);
    let silent = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap()
        + "speaks = \"none\"\nconfirm = []\n";
    write(&fleet.path("fleet.toml"), &silent);
    let groups: Vec<_> = Groups::load(&fleet.path("fleet.toml"))
        .unwrap()
        .groups
        .into_iter()
        .map(Arc::new)
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let survey = || {
        let began = Instant::now();
        let seen = runtime.block_on(Host::local("bench").survey(
            &groups,
            SurveyRequest {
                lock: None,
                timeout: None,
                intent: Intent::Adopt,
                also: &[],
                sources: &std::collections::BTreeSet::new(),
            },
        ));
        let took = began.elapsed();
        assert!(
            seen.instances.len() == n
                && seen
                    .instances
                    .iter()
                    .all(|m| !m.instance.endpoint.is_empty()),
            "{:?}",
            seen.refused.first()
        );
        took.as_secs_f64() * 1e3
    };
    let by_name = |option: &str, pattern: &str| {
        let took = whole::run(fleet.folder(), &["pgrep", option, pattern]);
        assert_eq!(
            std::fs::read_to_string(fleet.path("stdout"))
                .unwrap()
                .lines()
                .count(),
            n
        );
        took.wall_ms
    };
    // The process that starts it has the pattern in its own command line, which must not fit.
    let in_line = format!("[{}]{} serve", &fleet.name[..1], &fleet.name[1..]);
    let (mut ours, mut exact, mut full) = (Vec::new(), Vec::new(), Vec::new());
    survey();
    for _ in 0..pairs {
        ours.push(survey());
        if pgrep {
            exact.push(by_name("-x", &fleet.name));
            full.push(by_name("-f", &in_line));
        }
    }
    table(
        &format!("{n} processes, all of them matches, {pairs} pairs"),
        &["side", "wall, ms", "survey / it"],
    );
    row(&[
        "survey, in process",
        &Spread::of(ours.clone()).to_string(),
        "1",
    ]);
    for (name, theirs) in [("`pgrep -x NAME`", &exact), ("`pgrep -f NAME`", &full)] {
        if pgrep {
            row(&[
                name,
                &Spread::of(theirs.clone()).to_string(),
                &Spread::ratio(&ours, theirs).to_string(),
            ]);
        }
    }
    println!();
    if pgrep {
        at_most(
            &format!("survey at {n} against `pgrep -f`"),
            1.0,
            Spread::ratio(&ours, &full).median,
        );
    }
}
