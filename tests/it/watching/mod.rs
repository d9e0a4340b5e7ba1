//! `hello watch` over real processes and real files.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{Fleet, Killed, get, until};

mod changes;
mod daemons;
mod keys;
mod killed;
mod limits;
mod manager;
mod phases;
mod sidecar;

/// The longest wait for one condition. A busy machine needs seconds.
const LIMIT: Duration = Duration::from_secs(40);

/// A running `hello watch`. Killed by its pid when dropped.
pub(super) struct Watch {
    child: Killed,
    lines: Arc<Mutex<Vec<String>>>,
    url: String,
}

/// Returns the command that watches a fleet. Its metrics have a free port.
fn command(fleet: &Fleet, args: &[&str]) -> Command {
    let mut watch = fleet.read_only("watch");
    watch
        .arg("--state")
        .arg(fleet.path("state"))
        .args(["--listen", "127.0.0.1:0"])
        .args(args);
    watch
}

impl Watch {
    /// Starts a watch with a debounce time of 100 ms, and waits for its first run.
    fn start(fleet: &Fleet, args: &[&str]) -> Self {
        let watch = Self::begin(fleet, args);
        watch.until("its first run has ended", || watch.runs() > 0);
        watch
    }

    /// Does the same without the wait for the first run.
    fn begin(fleet: &Fleet, args: &[&str]) -> Self {
        let short: &[&str] = if args.contains(&"--debounce") {
            &[]
        } else {
            &["--debounce", "100ms"]
        };
        let args = [short, args].concat();
        Self::spawn(&mut command(fleet, &args))
    }

    /// Starts a command that becomes a watch with metrics.
    fn spawn(command: &mut Command) -> Self {
        Self::spawn_with(command, Stdio::null())
    }

    /// Does the same with this stdout. A pipe is never read.
    fn spawn_with(command: &mut Command, stdout: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut watch = Self {
            child: Killed(child),
            lines: Arc::default(),
            url: String::new(),
        };
        let lines = watch.lines.clone();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        until("it serves its metrics", || watch.has("Metrics at http://"));
        let line = watch.line("Metrics at ");
        let url = line.split("Metrics at ").nth(1).unwrap();
        watch.url = url.trim_end_matches("metrics").to_owned();
        watch
    }

    /// Waits for a condition. Fails with everything that was printed.
    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Returns everything that it has printed.
    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    fn has(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    /// Returns the first line with these words.
    fn line(&self, words: &str) -> String {
        let lines = self.lines.lock().unwrap();
        let line = lines.iter().find(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("no line has {words:?}: {lines:?}"))
            .clone()
    }

    fn waits_for(&self, words: &str) {
        let lines = self.lines.clone();
        let has = || {
            lines
                .lock()
                .unwrap()
                .iter()
                .any(|line| line.contains(words))
        };
        until(&format!("it prints {words:?}"), has);
    }

    /// Returns the value of a metric with its labels. `None` if it has no such series.
    fn metric(&self, series: &str) -> Option<f64> {
        let page = get(&self.url, "/metrics").1;
        page.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    fn succeeded(&self) -> bool {
        self.metric("hello_watch_last_reload_successful{group=\"web\"}") == Some(1.0)
    }

    fn failed(&self) -> bool {
        self.metric("hello_watch_last_reload_successful{group=\"web\"}") == Some(0.0)
    }

    /// Returns the number of runs with this verdict.
    fn runs_with(&self, verdict: &str) -> usize {
        let series = format!("hello_watch_runs_total{{verdict=\"{verdict}\"}}");
        self.metric(&series).unwrap_or_default() as usize
    }

    /// Returns the number of runs.
    fn runs(&self) -> usize {
        let page = get(&self.url, "/metrics").1;
        page.lines()
            .filter(|line| line.starts_with("hello_watch_runs_total{"))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
            .sum()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Sends a signal, and waits for the end.
    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }
}

/// Replaces a file in one step.
fn replace(fleet: &Fleet, name: &str, text: &str) {
    let new = fleet.write(&format!(".{name}.new"), text);
    std::fs::rename(new, fleet.path(name)).unwrap();
}

/// Returns a config of `hello serve` with this message.
fn config(message: &str) -> String {
    format!("message = \"{message}\"\nlisten = \"127.0.0.1:0\"\n")
}

/// Waits until every server serves this message.
fn serves(fleet: &Fleet, message: &str) {
    until(&format!("every server serves {message}"), || {
        fleet.bodies().iter().all(|body| body == message)
    });
}

/// Adds keys to the group of a fleet.
fn add_to_group(fleet: &Fleet, keys: &str) {
    let path = fleet.path("fleet.toml");
    let text = std::fs::read_to_string(path).unwrap();
    fleet.write("fleet.toml", &format!("{text}{keys}\n"));
}

/// Returns the ids of the runs that are kept.
fn journal(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state.join("runs"));
    let entries = entries.into_iter().flatten();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    runs
}
