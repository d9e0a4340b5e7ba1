//! The rogue: a server that takes SIGHUP and behaves badly in one way. It is this program under
//! another name.
//!
//! `/truth` always reports the digest of the config that the answering process serves. The log
//! holds the time of each signal and of each config that it began to serve.

use std::{
    ffi::CString,
    fs::OpenOptions,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};

use crate::{
    mode::Mode,
    world::{digest, message_of, now},
};

/// The options of a rogue.
#[derive(Debug, Clone)]
struct Rogue {
    config: PathBuf,
    mode: Mode,
    slow: Duration,
    /// The answers of an alternating rogue that come from the earlier config.
    turns: Turns,
    log: PathBuf,
    arguments: Vec<String>,
}

/// A sequence of answers, counted from 0: the first one, and the distance between two of them.
#[derive(Debug, Clone, Copy)]
struct Turns {
    first: usize,
    every: usize,
    /// Whether counting starts at the reload.
    anew: bool,
}

impl Turns {
    /// Parses `2,6`: the answers 2, 8, 14 and so on since the reload. The default is every second
    /// answer.
    fn of(text: Option<&str>) -> Option<Self> {
        let Some(text) = text else {
            return Some(Self {
                first: 0,
                every: 2,
                anew: false,
            });
        };
        let (first, every) = text.split_once(',')?;
        Some(Self {
            first: first.parse().ok()?,
            every: every.parse().ok()?,
            anew: true,
        })
    }

    fn are_before(self, turn: usize) -> bool {
        turn.checked_sub(self.first)
            .is_some_and(|since| since.is_multiple_of(self.every))
    }
}

#[derive(Debug, Clone, Default)]
struct Loaded {
    sha256: String,
    message: String,
}

#[derive(Debug, Default)]
struct State {
    serves: Loaded,
    /// The config that an alternating rogue serves every other time.
    before: Loaded,
    /// The content that its last attempt read, and the result.
    looked: Loaded,
    result: &'static str,
    attempts: u64,
    loads: u64,
    stamp: f64,
    sighups: u64,
    /// The count of ordinary answers, and of answers to `/truth`.
    answers: [usize; 2],
    /// Signals that are still to be handled.
    busy: bool,
    blank: bool,
}

type Shared = Arc<Mutex<State>>;

impl Rogue {
    fn of(arguments: &[String]) -> Option<Self> {
        let value = |name: &str| arguments.iter().skip_while(|a| *a != name).nth(1).cloned();
        Some(Self {
            config: value("--config")?.into(),
            mode: Mode::named(&value("--mode")?)?,
            slow: Duration::from_millis(value("--slow")?.parse().ok()?),
            turns: Turns::of(value("--turns").as_deref())?,
            log: value("--log")?.into(),
            arguments: arguments.to_vec(),
        })
    }

    fn has(&self, flag: &str) -> bool {
        self.arguments.iter().any(|a| a == flag)
    }

    fn load(&self) -> Option<Loaded> {
        let file = if self.config.is_dir() {
            self.config.join("web.toml")
        } else {
            self.config.clone()
        };
        let bytes = std::fs::read(file).ok()?;
        let message = message_of(&bytes)?;
        Some(Loaded {
            sha256: digest(&bytes),
            message,
        })
    }

    fn note(&self, what: &str) {
        let line = format!("{:.6} {} {what}\n", now(), std::process::id());
        let file = OpenOptions::new().append(true).create(true).open(&self.log);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// Another process of the same program, which gets the socket as its stdin.
    fn child(&self, listener: &TcpListener, role: &str) -> std::io::Result<std::process::Child> {
        let socket = OwnedFd::from(listener.try_clone()?);
        let mut arguments: Vec<String> = self
            .arguments
            .iter()
            .filter(|a| !ROLES.contains(&a.as_str()))
            .cloned()
            .collect();
        arguments.push(role.into());
        Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
    }
}

const WORKER: &str = "--worker";
const INHERITED: &str = "--inherited";
const SLEEPER: &str = "--sleeper";
/// Merges signals that arrive before it reads, as `hello serve` does.
const MERGES: &str = "--merges";
const ROLES: [&str; 3] = [WORKER, INHERITED, SLEEPER];

/// Runs until a signal or its mode ends it.
pub(crate) fn run(arguments: &[String]) -> Option<()> {
    let rogue = Rogue::of(arguments)?;
    // The handler comes first: without one, the signal ends the process.
    let (ours, mut signals) = UnixStream::pair().ok()?;
    let master = nix::unistd::getppid();
    if rogue.has(SLEEPER) || rogue.has(WORKER) {
        // A worker does not outlive its master.
        thread::spawn(move || {
            while nix::unistd::getppid() == master {
                thread::sleep(Duration::from_millis(100));
            }
            std::process::exit(0);
        });
    }
    if rogue.has(SLEEPER) {
        loop {
            thread::sleep(Duration::from_secs(60));
        }
    }
    if !rogue.has(WORKER) {
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGHUP, ours).ok()?;
        SigSet::from(Signal::SIGHUP).thread_unblock().ok()?;
    }
    let inherited = rogue.has(INHERITED) || rogue.has(WORKER);
    let listener = if inherited {
        TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?)
    } else {
        listen(rogue.has("--reuseport"))?
    };
    let first = rogue.load()?;
    let state = State {
        serves: first.clone(),
        before: first.clone(),
        looked: first.clone(),
        result: "applied",
        attempts: 1,
        loads: 1,
        stamp: now(),
        ..State::default()
    };
    let shared = Arc::new(Mutex::new(state));
    rogue.note(&format!("began {} {}", first.sha256, first.message));
    let mut workers = Vec::new();
    match rogue.mode {
        mode if mode.has_workers() && !rogue.has(WORKER) => {
            workers.push(rogue.child(&listener, WORKER).ok()?)
        }
        Mode::Helper => workers.push(rogue.child(&listener, SLEEPER).ok()?),
        _ => {}
    }
    if !rogue.mode.has_workers() || rogue.has(WORKER) {
        let (listener, shared) = (listener.try_clone().ok()?, shared.clone());
        let rogue = rogue.clone();
        thread::spawn(move || accept(&rogue, &listener, &shared));
    }
    if !inherited {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "http://{}/", listener.local_addr().ok()?)
            .and_then(|()| stdout.flush())
            .ok()?;
    }
    let mut byte = [0];
    while signals.read_exact(&mut byte).is_ok() {
        shared.lock().ok()?.sighups += 1;
        shared.lock().ok()?.busy = true;
        rogue.note("hup");
        hang_up(&rogue, &shared, &listener, &mut signals, &mut workers);
        if signals.set_nonblocking(true).is_ok() {
            let more =
                rustix::net::recv(&signals, &mut [0; 1], rustix::net::RecvFlags::PEEK).is_ok();
            signals.set_nonblocking(false).ok()?;
            shared.lock().ok()?.busy = more;
        }
    }
    // A worker has no signals: its accepting thread serves until its master ends.
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

fn listen(reuse: bool) -> Option<TcpListener> {
    if !reuse {
        return TcpListener::bind("127.0.0.1:0").ok();
    }
    shared_port(0)
}

/// A socket on a port that others may listen on as well.
pub(crate) fn shared_port(port: u16) -> Option<TcpListener> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).ok()?;
    sockopt::set_socket_reuseaddr(&socket, true).ok()?;
    sockopt::set_socket_reuseport(&socket, true).ok()?;
    bind(
        &socket,
        &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port),
    )
    .ok()?;
    listen(&socket, 64).ok()?;
    Some(TcpListener::from(socket))
}

/// Handles one signal in the manner of the mode.
fn hang_up(
    rogue: &Rogue,
    shared: &Shared,
    listener: &TcpListener,
    signals: &mut UnixStream,
    workers: &mut Vec<std::process::Child>,
) {
    let Some(new) = rogue.load() else {
        attempt(shared, &Loaded::default(), "io_error");
        return rogue.note("unreadable");
    };
    match rogue.mode {
        Mode::Good => apply(rogue, shared, new),
        Mode::SlowEarly => {
            thread::sleep(rogue.slow);
            apply(rogue, shared, new);
        }
        Mode::SlowLate => {
            thread::sleep(rogue.slow);
            if rogue.has(MERGES) {
                lose(rogue, shared, signals);
            }
            rogue
                .load()
                .into_iter()
                .for_each(|new| apply(rogue, shared, new));
        }
        Mode::SlowDrop => {
            thread::sleep(rogue.slow);
            apply(rogue, shared, new);
            lose(rogue, shared, signals);
        }
        Mode::Blank => {
            set(shared, |state| state.blank = true);
            thread::sleep(rogue.slow);
            set(shared, |state| state.blank = false);
        }
        Mode::Liar => {
            attempt(shared, &new, "applied");
            set(shared, |state| {
                state.loads += 1;
                state.stamp = now();
            });
        }
        Mode::Alternates => {
            let old = shared
                .lock()
                .map(|state| state.serves.clone())
                .unwrap_or_default();
            apply_over(rogue, shared, new, old);
        }
        Mode::Dies => end(rogue),
        Mode::Dislikes if new.message.contains("bad") => end(rogue),
        Mode::Silent if new.message.contains("odd") => rogue.note("kept"),
        Mode::Tells if new.message.contains("odd") => attempt(shared, &new, "rejected"),
        Mode::Dislikes | Mode::Silent | Mode::Tells => apply(rogue, shared, new),
        Mode::Second => {
            if shared.lock().is_ok_and(|state| state.sighups % 2 == 0) {
                apply(rogue, shared, new);
            }
        }
        Mode::Workers | Mode::KeepsWorker => {
            workers.extend(rogue.child(listener, WORKER));
            if rogue.mode == Mode::Workers {
                // The new worker must accept connections before the old one stops.
                thread::sleep(Duration::from_millis(30));
                end_children(workers.drain(..workers.len() - 1));
            }
        }
        Mode::Helper => workers.extend(rogue.child(listener, SLEEPER)),
        Mode::Reexec | Mode::ReexecOpen => execute_again(rogue, listener),
        Mode::Successor => {
            let _ = rogue.child(listener, INHERITED);
            end(rogue);
        }
    }
}

fn end_children(children: impl Iterator<Item = std::process::Child>) {
    for mut child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn end(rogue: &Rogue) {
    rogue.note("ends");
    std::process::exit(3);
}

fn set(shared: &Shared, change: impl FnOnce(&mut State)) {
    if let Ok(mut state) = shared.lock() {
        change(&mut state);
    }
}

fn attempt(shared: &Shared, looked: &Loaded, result: &'static str) {
    set(shared, |state| {
        state.attempts += 1;
        state.looked = looked.clone();
        state.result = result;
    });
}

fn apply(rogue: &Rogue, shared: &Shared, new: Loaded) {
    let before = new.clone();
    apply_over(rogue, shared, new, before);
}

/// Serves the new config, and the earlier one beside it if they differ.
fn apply_over(rogue: &Rogue, shared: &Shared, new: Loaded, before: Loaded) {
    attempt(shared, &new, "applied");
    rogue.note(&format!("serves {} {}", new.sha256, new.message));
    set(shared, |state| {
        if rogue.turns.anew {
            state.answers = [0; 2];
        }
        state.before = before;
        state.serves = new;
        state.loads += 1;
        state.stamp = now();
    });
}

/// Counts the signals that arrived during a reload.
fn lose(rogue: &Rogue, shared: &Shared, signals: &mut UnixStream) {
    if signals.set_nonblocking(true).is_ok() {
        let mut bytes = [0; 64];
        while let Ok(lost @ 1..) = signals.read(&mut bytes) {
            set(shared, |state| state.sighups += lost as u64);
            (0..lost).for_each(|_| rogue.note("hup"));
        }
        let _ = signals.set_nonblocking(false);
    }
}

/// Executes this program again with the same pid and socket.
fn execute_again(rogue: &Rogue, listener: &TcpListener) {
    rogue.note("executes");
    if rogue.mode == Mode::Reexec {
        // An exec keeps the mask, and the mask of this thread becomes that of the program.
        let _ = SigSet::from(Signal::SIGHUP).thread_block();
    }
    if nix::unistd::dup2_stdin(listener).is_err() {
        return;
    }
    let mut arguments: Vec<String> = rogue
        .arguments
        .iter()
        .filter(|a| !ROLES.contains(&a.as_str()))
        .cloned()
        .collect();
    arguments.push(INHERITED.into());
    let name = std::env::args().next().unwrap_or_default();
    let arguments: Vec<CString> = [name]
        .into_iter()
        .chain(arguments)
        .filter_map(|a| CString::new(a).ok())
        .collect();
    let _ = nix::unistd::execv(c"/proc/self/exe", &arguments);
    rogue.note(&format!(
        "cannot execute itself with fd {}",
        listener.as_raw_fd()
    ));
}

fn accept(rogue: &Rogue, listener: &TcpListener, shared: &Shared) {
    for stream in listener.incoming().flatten() {
        let (rogue, shared) = (rogue.clone(), shared.clone());
        thread::spawn(move || answer(&rogue, stream, &shared));
    }
}

fn answer(rogue: &Rogue, mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let (mut request, mut piece) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        request.extend_from_slice(&piece[..length]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut state = shared.lock().ok()?;
    let (is_truth, disk) = (path == "/truth", rogue.load());
    let turn = state.answers[usize::from(is_truth)];
    state.answers[usize::from(is_truth)] += 1;
    let serves = if rogue.mode == Mode::Alternates && rogue.turns.are_before(turn) {
        state.before.clone()
    } else {
        state.serves.clone()
    };
    let says = if rogue.mode == Mode::Liar {
        disk.unwrap_or_default().sha256
    } else {
        serves.sha256.clone()
    };
    let me = std::process::id();
    let started = crate::world::started_at(i32::try_from(me).ok()?).unwrap_or_default();
    let body = match path.as_str() {
        "/truth" => format!("{} {} {}", serves.sha256, state.sighups, u8::from(state.busy)),
        "/count" => state.loads.to_string(),
        "/stamp" => format!("{:.6}", state.stamp),
        "/clock" => format!("{:.3}", now()),
        "/-/config" => serde_json::json!({
            "v": 1, "instance": { "pid": me, "started": started, "exe": std::env::current_exe().ok()?, "version": "0" },
            "effective": { "sha256": says, "generation": state.loads, "loaded_at": stamp(state.stamp), "path": rogue.config },
            "last_attempt": { "seq": state.attempts, "sha256": state.looked.sha256, "result": state.result,
                "error": (state.result == "rejected").then_some("odd"), "at": stamp(now()), "took_us": 1 },
            "restart_required": [], "restart_only": {}
        })
        .to_string(),
        _ if state.blank => String::new(),
        _ => serves.message,
    };
    drop(state);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Config-Sha256: {says}\r\nX-Instance: {me}:{started}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).ok()
}

fn stamp(at: f64) -> String {
    jiff::Timestamp::from_microsecond((at * 1e6) as i64)
        .map(|t| t.to_string())
        .unwrap_or_default()
}

/// Runs a program that is no instance. It takes a port and answers like the server that was there.
pub(crate) fn thief(arguments: &[String]) -> Option<()> {
    let (port, message) = (arguments.get(1)?.parse().ok()?, arguments.get(2)?);
    let listener = shared_port(port)?;
    writeln!(std::io::stdout(), "there").ok()?;
    for mut stream in listener.incoming().flatten() {
        let mut piece = [0; 4096];
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = stream.read(&mut piece);
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{message}",
            message.len()
        );
    }
    Some(())
}

/// Runs a validator that rejects a config with `invalid` in it.
pub(crate) fn check(file: &Path) -> bool {
    std::fs::read(file)
        .ok()
        .and_then(|bytes| message_of(&bytes))
        .is_some_and(|message| !message.contains("invalid"))
}
