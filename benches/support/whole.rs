//! What a whole process takes, with all that it starts: it runs below a small process of its own,
//! which has no other children.

use std::{
    fs::File,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
        time::TimeValLike,
    },
    unistd::Pid,
};

/// The bench's own executable, run again under this word, is the small process.
pub(crate) const ROLE: &str = "whole";
/// One that takes longer is ended.
const LIMIT: Duration = Duration::from_secs(600);

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) wall_ms: f64,
    pub(crate) cpu_ms: f64,
    /// Of the largest process in it, in 10^6 bytes.
    pub(crate) peak_mb: f64,
}

/// Runs `argv`; stdout and stderr are in `dir` afterwards, as files of that name. It must exit with
/// 0.
pub(crate) fn run(dir: &Path, argv: &[&str]) -> Took {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg(ROLE)
        .arg(dir)
        .args(argv)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    assert!(
        output.status.success(),
        "{argv:?}: {said}\n{}{}",
        read("stdout"),
        read("stderr")
    );
    let numbers: Vec<f64> = said
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    Took {
        wall_ms: numbers[0],
        cpu_ms: numbers[1],
        peak_mb: numbers[2],
    }
}

/// The small process: `args` are the folder and the argv.
pub(crate) fn role(args: &[String]) -> ExitCode {
    let (dir, argv) = (Path::new(&args[0]), &args[1..]);
    let file = |name: &str| File::create(dir.join(name)).unwrap();
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"));
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    std::thread::spawn(move || {
        std::thread::sleep(LIMIT);
        // It was not taken in yet, or this process would have ended.
        let _ = kill(pid, Signal::SIGKILL);
    });
    let status = child.wait().unwrap();
    let wall = began.elapsed();
    if !status.success() {
        println!("{status}");
        return ExitCode::FAILURE;
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    println!(
        "{} {} {}",
        wall.as_secs_f64() * 1e3,
        cpu as f64 / 1e3,
        usage.max_rss() as f64 * 1024.0 / 1e6
    );
    ExitCode::SUCCESS
}
