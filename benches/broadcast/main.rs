//! `hello broadcast` against what one types today, and against the floor: whole processes, from
//! their start to their end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what it measures, and fails by ending"
)]

use std::{path::Path, process::ExitCode};

use hello::config::digest;

use self::support::{
    Args, Spread, at_most, cores, digits,
    fleet::{Configs, Fleet, config, write},
    machine, program, row, table, whole,
    whole::Took,
};

mod floor;
#[path = "../support/mod.rs"]
mod support;

const SIZES: &[usize] = &[10, 100, 1000, 10_000];
/// A process for every URL takes minutes above this.
const XARGS: usize = 1000;

/// A way to reload the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Hello,
    Curl,
    Xargs,
    Floor,
    /// This build from a file of its own, to compare with [`Side::Before`]: the pages of the file
    /// that
    /// the servers run are warm, which makes that one faster.
    Now,
    /// Another build of `hello`, from a file of its own, which signals the same servers.
    Before,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Hello => "`hello broadcast`",
            Self::Curl => "(a) `curl -Z`, `pkill`",
            Self::Xargs => "(b) `xargs -P16 curl`, `pkill`",
            Self::Floor => "(c) floor",
            Self::Now => "(d) `hello broadcast`, a copy",
            Self::Before => "(e) `hello broadcast` of before, a copy",
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(whole::ROLE) => return whole::role(&words[1..]),
        Some(floor::ROLE) => return floor::role(&words[1..]),
        _ => {}
    }
    let args = match Args::of(SIZES, 1000) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    machine(
        support::fleet::folder().path(),
        &[
            ("curl", &["--version"]),
            ("pkill", &["--version"]),
            ("xargs", &["--version"]),
        ],
    );
    let mut sides = vec![Side::Hello, Side::Floor];
    let typed = [("curl", "curl"), ("pkill", "procps")]
        .iter()
        .all(|(name, package)| program(name, package).is_some());
    if typed {
        sides.push(Side::Curl);
        sides.extend(program("xargs", "findutils").map(|_| Side::Xargs));
    }
    if args.before.is_some() {
        sides.extend([Side::Now, Side::Before]);
    }
    for n in &args.sizes {
        let shared = shared(*n, &args, &sides);
        if *n == 1000 && args.before.is_none() {
            each(*n, args.pairs, &shared, Configs::Equal);
            each(*n, args.pairs, &shared, Configs::Different);
        }
    }
    ExitCode::SUCCESS
}

/// One config for all, each side in turn; the wall times of `hello`.
fn shared(n: usize, args: &Args, sides: &[Side]) -> Vec<f64> {
    let pairs = args.pairs;
    let fleet = Fleet::start(n, Configs::Shared);
    let line = |sep: &str, with_pid: bool| {
        let one = |(server, address): &(_, std::net::SocketAddr)| match with_pid {
            true => format!("{}{sep}{address}\n", support::fleet::Running::pid(server)),
            false => format!("http://{address}/\n"),
        };
        fleet.servers().iter().map(one).collect::<String>()
    };
    write(&fleet.path("urls"), &line("", false));
    write(&fleet.path("servers"), &line(" ", true));
    if let Some(before) = &args.before {
        std::fs::copy(env!("CARGO_BIN_EXE_hello"), fleet.path("hello-now")).unwrap();
        std::fs::copy(before, fleet.path("hello-before")).unwrap();
    }
    if n > XARGS {
        println!("\n(b) is not run at {n}: it starts a process for every question");
    }
    let sides: Vec<Side> = sides
        .iter()
        .copied()
        .filter(|side| *side != Side::Xargs || n <= XARGS)
        .collect();
    let mut took: Vec<Vec<Took>> = vec![Vec::new(); sides.len()];
    for round in 0..=pairs {
        let mut turns: Vec<usize> = (0..sides.len()).collect();
        // Another order every time, the same in every measurement: no side always finds what the
        // same other has left in the caches.
        turns.sort_by_key(|at| digest(format!("{round} {at}").as_bytes()));
        for at in turns {
            // The first round warms up; a side that starts a process for every URL has nothing to
            // warm.
            if round > 0 || sides[at] != Side::Xargs {
                let one = reload(&fleet, sides[at], &format!("round {round}, side {at}"));
                took[at].extend((round > 0).then_some(one));
            }
        }
    }
    tell(
        &format!("{n} instances, one shared config, {pairs} pairs"),
        &sides,
        &took,
    );
    let wall = |side: Side| {
        sides
            .iter()
            .position(|s| *s == side)
            .map(|at| took[at].iter().map(|t| t.wall_ms).collect::<Vec<_>>())
    };
    let ours = wall(Side::Hello).unwrap();
    let bars = [
        (Side::Hello, Side::Curl, n <= 1000, 0.75),
        (Side::Hello, Side::Curl, n == 10_000, 0.9),
        (Side::Hello, Side::Xargs, n == 1000, 0.10),
        (Side::Hello, Side::Floor, n == 1000, 1.6),
        (Side::Now, Side::Before, n < 1000, 1.10),
        (Side::Now, Side::Before, n >= 1000, 1.15),
    ];
    for (side, other, _, limit) in bars.into_iter().filter(|(.., applies, _)| *applies) {
        if let (Some(own), Some(theirs)) = (wall(side), wall(other)) {
            at_most(
                &format!("wall time at {n}, {} against {}", side.name(), other.name()),
                limit,
                Spread::ratio(&own, &theirs).median,
            );
        }
    }
    if n == 10_000 {
        let peak = took[0].iter().map(|t| t.peak_mb).fold(0.0, f64::max);
        at_most("peak memory of the coordinator at 10000, MB", 70.0, peak);
    }
    ours
}

/// A config each, changed in one run.
fn each(n: usize, pairs: usize, shared: &[f64], configs: Configs) {
    let fleet = Fleet::start(n, configs);
    let mut took = Vec::new();
    for round in 0..=pairs {
        let message = format!("round {round}");
        rustix::fs::sync();
        let one = broadcast(&fleet, &["--set", &format!("message={message}")]);
        fleet.must_serve(|at| digest(configs.text(at, &message).as_bytes()));
        took.extend((round > 0).then_some(one));
    }
    // Of equal ones one is validated for all.
    let which = if configs == Configs::Equal {
        "all equal"
    } else {
        "all different"
    };
    tell(
        &format!("{n} instances with a config each, {which}, changed by `--set`, {pairs} runs"),
        &[Side::Hello],
        std::slice::from_ref(&took),
    );
    let ours: Vec<f64> = took.iter().map(|t| t.wall_ms).collect();
    at_most(
        &format!("a config each, {which}, against one for all"),
        2.0,
        Spread::ratio(&ours, shared).median,
    );
}

/// One run of one side, at whose end every instance serves the new config.
fn reload(fleet: &Fleet, side: Side, message: &str) -> Took {
    let (new, live) = (fleet.path("new.toml"), fleet.path("web.toml"));
    let text = config(message);
    write(&new, &text);
    // What the one before left to the disk is not counted to this one.
    rustix::fs::sync();
    let sha256 = digest(text.as_bytes());
    let file = |name: &str| fleet.path(name).display().to_string();
    let (new, live) = (new.display().to_string(), live.display().to_string());
    let typed = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/broadcast/typed.sh");
    let typed = |how: &str| {
        whole::run(
            fleet.folder(),
            &[
                typed,
                how,
                env!("CARGO_BIN_EXE_hello"),
                &new,
                &live,
                &fleet.name,
                &file("urls"),
            ],
        )
    };
    let took = match side {
        Side::Hello => broadcast(fleet, &["--config", &new]),
        Side::Now => broadcast_by(
            &fleet.path("hello-now"),
            fleet,
            "state-now",
            &["--config", &new],
        ),
        Side::Before => broadcast_by(
            &fleet.path("hello-before"),
            fleet,
            "state-before",
            &["--config", &new],
        ),
        Side::Curl => typed("curl"),
        Side::Xargs => typed("xargs"),
        Side::Floor => {
            let me = std::env::current_exe().unwrap().display().to_string();
            whole::run(
                fleet.folder(),
                &[
                    &me,
                    floor::ROLE,
                    &fleet.name,
                    &file("servers"),
                    &new,
                    &live,
                    &sha256,
                ],
            )
        }
    };
    fleet.must_serve(|_| sha256.clone());
    took
}

/// By the binary that the servers run, as it is where one package brings both.
fn broadcast(fleet: &Fleet, change: &[&str]) -> Took {
    broadcast_by(&fleet.path(&fleet.name), fleet, "state", change)
}

/// By any build of `hello`, each with a state directory of its own, since their files may differ.
fn broadcast_by(hello: &Path, fleet: &Fleet, state: &str, change: &[&str]) -> Took {
    let (file, state) = (
        fleet.path("fleet.toml").display().to_string(),
        fleet.path(state).display().to_string(),
    );
    whole::run(
        fleet.folder(),
        &[
            &[
                &*hello.display().to_string(),
                "broadcast",
                "--fleet",
                &file,
                "--state",
                &state,
            ],
            change,
        ]
        .concat(),
    )
}

/// Every side, and how many times its time is that of `hello`, pair by pair.
fn tell(title: &str, sides: &[Side], took: &[Vec<Took>]) {
    table(
        title,
        &[
            "side",
            "wall, ms",
            "CPU, ms",
            "peak, MB",
            &format!("wall of `hello` / its ({} cores)", cores()),
        ],
    );
    let wall = |all: &[Took]| all.iter().map(|t| t.wall_ms).collect::<Vec<_>>();
    for (side, all) in sides.iter().zip(took) {
        let spread = |of: fn(&Took) -> f64| Spread::of(all.iter().map(of));
        let ratio = if *side == Side::Hello {
            "1".to_owned()
        } else {
            Spread::ratio(&wall(&took[0]), &wall(all)).to_string()
        };
        row(&[
            side.name().to_owned(),
            spread(|t| t.wall_ms).to_string(),
            digits(spread(|t| t.cpu_ms).median),
            digits(spread(|t| t.peak_mb).median),
            ratio,
        ]);
    }
    println!();
}
