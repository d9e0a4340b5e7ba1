//! `wrk` against one server, while it reloads so and so often.

use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::side::Side;

/// What `wrk` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Connections, reads, writes and time limits that failed, and answers that were none.
    pub(crate) errors: f64,
}

/// Loads `side` for so many seconds, with `hertz` reloads a second, each of a changed config.
pub(crate) fn run(side: &mut Side, seconds: u64, hertz: u32) -> Said {
    let done = AtomicBool::new(false);
    let address = side.address;
    let said = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let said = wrk(address, seconds);
            done.store(true, Ordering::Relaxed);
            said
        });
        let began = Instant::now();
        for n in 1.. {
            if hertz == 0 || done.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep((Duration::from_secs(n) / hertz).saturating_sub(began.elapsed()));
            side.change();
            side.process.signal();
        }
        load.join().unwrap()
    });
    side.settle();
    said
}

fn wrk(address: SocketAddr, seconds: u64) -> Said {
    let output = Command::new("wrk")
        .args([
            "-t1",
            "-c64",
            "--latency",
            &format!("-d{seconds}s"),
            &format!("http://{address}/"),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let line = |key: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(key))
            .map(str::trim)
    };
    let ms = |key: &str| milliseconds(line(key).unwrap_or_else(|| panic!("no {key} in {text}")));
    let sockets = line("Socket errors:").map_or(0.0, |all| {
        all.split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse::<f64>().ok())
            .sum()
    });
    let answers: f64 = line("Non-2xx or 3xx responses:").map_or(0.0, |n| n.parse().unwrap());
    let per_second = line("Requests/sec:").unwrap().parse().unwrap();
    Said {
        per_second,
        p50_ms: ms("50%"),
        p99_ms: ms("99%"),
        errors: sockets + answers,
    }
}

/// `1.23ms`, `456.00us`, `1.02s`.
fn milliseconds(text: &str) -> f64 {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, unit) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .unwrap();
    number.parse::<f64>().unwrap() * unit
}
