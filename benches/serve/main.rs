//! `hello serve` against nginx and a server in Go: under load, while it reloads, at rest, and from the signal to the answer.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what it measures, and fails by ending"
)]

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use self::{
    load::Said,
    side::{Client, Kind, Programs, Side},
    support::{Args, Spread, at_least, at_most, digits, machine, program, row, table},
};

mod load;
mod side;
#[path = "../support/mod.rs"]
mod support;

/// Reloads a second.
const HERTZ: [u32; 3] = [0, 20, 100];
/// Processes at rest.
const IDLE: usize = 100;
/// Reloads, from the signal to the answer.
const ANSWERS: usize = 200;

fn main() -> ExitCode {
    let args = match Args::of(&[IDLE], IDLE) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let dir = support::fleet::folder();
    machine(
        dir.path(),
        &[("wrk", &["-v"]), ("nginx", &["-v"]), ("go", &["version"])],
    );
    let programs = Programs::find(dir.path(), args.before.clone());
    let kinds = programs.kinds();
    let mut sides: Vec<Side> = kinds
        .iter()
        .map(|kind| programs.start(*kind, dir.path(), &format!("{kind:?}")))
        .collect();
    if program("wrk", "wrk").is_some() {
        loads(&mut sides, &args);
    }
    answers(&mut sides);
    drop(sides);
    idle(&programs, dir.path());
    ExitCode::SUCCESS
}

/// Of several series, that of one kind.
fn of<T>(kinds: &[Kind], all: &[T], kind: Kind) -> Option<T>
where
    T: Clone,
{
    kinds
        .iter()
        .position(|k| *k == kind)
        .map(|at| all[at].clone())
}

fn loads(sides: &mut [Side], args: &Args) {
    let kinds: Vec<Kind> = sides.iter().map(|side| side.kind).collect();
    let mut said: Vec<Vec<Vec<Said>>> = vec![vec![Vec::new(); sides.len()]; HERTZ.len()];
    for round in 0..=args.pairs {
        for (rate, hertz) in HERTZ.iter().enumerate() {
            for turn in 0..sides.len() {
                let at = (turn + round) % sides.len();
                // The first round warms up.
                let one = load::run(
                    &mut sides[at],
                    if round == 0 { 1 } else { args.seconds },
                    *hertz,
                );
                said[rate][at].extend((round > 0).then_some(one));
            }
        }
    }
    let rps = |all: &[Said]| all.iter().map(|s| s.per_second).collect::<Vec<_>>();
    table(
        &format!(
            "wrk -t1 -c64, {} s each, {} pairs",
            args.seconds, args.pairs
        ),
        &[
            "side",
            "SIGHUP, Hz",
            "requests/s",
            "p50, ms",
            "p99, ms",
            "errors",
            "requests/s of `hello` / its",
        ],
    );
    for (rate, hertz) in HERTZ.iter().enumerate() {
        for (kind, all) in kinds.iter().zip(&said[rate]) {
            let spread = |of: fn(&Said) -> f64| Spread::of(all.iter().map(of)).to_string();
            let errors: f64 = all.iter().map(|s| s.errors).sum();
            let ratio = if *kind == Kind::Hello {
                "1".into()
            } else {
                Spread::ratio(&rps(&said[rate][0]), &rps(all)).to_string()
            };
            row(&[
                kind.name(),
                &hertz.to_string(),
                &spread(|s| s.per_second),
                &spread(|s| s.p50_ms),
                &spread(|s| s.p99_ms),
                &format!("{errors}"),
                &ratio,
            ]);
        }
    }
    println!();
    for (kind, limit) in [(Kind::Nginx, 0.95), (Kind::Go, 1.5)] {
        if let Some(theirs) = of(&kinds, &said[0], kind) {
            at_least(
                &format!("requests per second against {}", kind.name()),
                limit,
                Spread::ratio(&rps(&said[0][0]), &rps(&theirs)).median,
            );
        }
    }
    let p99 = |rate: usize| said[rate][0].iter().map(|s| s.p99_ms).collect::<Vec<_>>();
    at_most(
        "errors at 100 Hz",
        0.0,
        said[HERTZ.len() - 1][0].iter().map(|s| s.errors).sum(),
    );
    at_most(
        "p99 at 100 Hz against its own without reloads",
        2.0,
        Spread::ratio(&p99(HERTZ.len() - 1), &p99(0)).median,
    );
}

/// From the signal to the first answer with the new message, over a connection that is kept; nginx keeps none over a reload.
fn answers(sides: &mut [Side]) {
    let kinds: Vec<Kind> = sides.iter().map(|side| side.kind).collect();
    let mut took: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
    for _ in 0..ANSWERS {
        for (side, took) in sides
            .iter_mut()
            .zip(&mut took)
            .filter(|(side, _)| side.kind != Kind::Nginx)
        {
            let mut client = Client::open(side.address).unwrap();
            client.ask();
            let message = side.change();
            let began = Instant::now();
            side.process.signal();
            while !client.ask().ends_with(&message) {
                assert!(
                    began.elapsed() < Duration::from_secs(10),
                    "{:?} answers as before",
                    side.kind
                );
            }
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    table(
        &format!("from `kill` to the first new answer, {ANSWERS} reloads"),
        &["side", "µs", "`hello` / it"],
    );
    for (kind, all) in kinds.iter().zip(&took).filter(|(_, all)| !all.is_empty()) {
        let ratio = if *kind == Kind::Hello {
            "1".into()
        } else {
            Spread::ratio(&took[0], all).to_string()
        };
        row(&[kind.name(), &Spread::of(all.clone()).to_string(), &ratio]);
    }
    println!();
    if let Some(theirs) = of(&kinds, &took, Kind::Go) {
        at_most(
            "from `kill` to the answer against Go, medians",
            1.1,
            Spread::of(took[0].clone()).median / Spread::of(theirs).median,
        );
    }
}

/// Processes that have answered once and wait.
fn idle(programs: &Programs, dir: &Path) {
    let kinds: Vec<Kind> = programs
        .kinds()
        .into_iter()
        .filter(|kind| *kind != Kind::Nginx)
        .collect();
    table(
        &format!("{IDLE} processes at rest"),
        &["side", "PSS of all, MiB", "threads of the largest"],
    );
    let mut all = Vec::new();
    for kind in &kinds {
        let sides: Vec<Side> = (0..IDLE)
            .map(|n| programs.start(*kind, dir, &format!("{kind:?}-{n}")))
            .collect();
        let read = |side: &Side, file: &str, key: &str| {
            let text =
                std::fs::read_to_string(format!("/proc/{}/{file}", side.process.pid())).unwrap();
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap();
            value
                .split_whitespace()
                .next()
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        let pss: f64 = sides
            .iter()
            .map(|side| read(side, "smaps_rollup", "Pss:"))
            .sum::<f64>()
            / 1024.0;
        let threads = sides
            .iter()
            .map(|side| read(side, "status", "Threads:"))
            .fold(0.0, f64::max);
        row(&[kind.name(), &digits(pss), &format!("{threads}")]);
        all.push((pss, threads));
    }
    println!();
    if let Some((theirs, _)) = of(&kinds, &all, Kind::Go) {
        at_most("PSS against Go", 0.8, all[0].0 / theirs);
    }
    at_most("threads of a process at rest", 1.0, all[0].1);
}
