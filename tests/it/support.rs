//! A fleet of real servers, killed by pid when the test ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    ops::{Deref, DerefMut},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

static COUNTER: AtomicU32 = AtomicU32::new(0);
/// The longest wait for one condition. A busy machine starts a server within seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest time of one run of `hello`. A run that hangs then fails its test.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Fleet {
    pub(crate) dir: tempfile::TempDir,
    exe: PathBuf,
    servers: Vec<(Child, String)>,
}

/// The end of a command. No exit code if a signal ended it.
pub(crate) struct CommandEnd {
    pub(crate) code: Option<i32>,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

impl CommandEnd {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A process. Killed by its pid when dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Deref for Killed {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Killed {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct CommandResult {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

/// Makes `to` the name of a program: a link where the disk allows it, else a copy. A test may
/// replace or remove the name, and may not write to the file.
pub(crate) fn install_program(from: &Path, to: &Path) {
    // Another process makes the copy. A child of a parallel test could inherit a descriptor that is
    // open for writing, and the copy could not be executed.
    let script = "cp -l \"$0\" \"$1\" 2>/dev/null || cp \"$0\" \"$1\"";
    let mut install = Command::new("sh");
    install.args(["-c", script]).arg(from).arg(to);
    assert!(install.status().unwrap().success());
}

impl Fleet {
    /// Starts `n` servers of one shared config, under an executable name that no other test uses.
    pub(crate) fn start(n: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The kernel keeps 15 bytes of a name, and a process of another user shows no more: the
        // part that differs comes first.
        let name = format!(
            "hello-{}-{}",
            COUNTER.fetch_add(1, Ordering::Relaxed),
            std::process::id()
        );
        let exe = dir.path().join(&name);
        install_program(Path::new(env!("CARGO_BIN_EXE_hello")), &exe);
        let mut fleet = Self {
            dir,
            exe,
            servers: Vec::new(),
        };
        fleet.write(
            "web.toml",
            "# the shared one\nmessage = \"one\" # said\nlisten = \"127.0.0.1:0\"\n",
        );
        fleet.write(
            "fleet.toml",
            &format!("version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"3s\"\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n"),
        );
        for _ in 0..n {
            fleet.serve();
        }
        fleet
    }

    /// Kills a server and reaps it.
    pub(crate) fn kill(&mut self, index: usize) {
        let child = &mut self.servers[index].0;
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Restarts a server in its slot with the same command line.
    pub(crate) fn restart(&mut self, index: usize, config: &str) {
        self.kill(index);
        self.serve_from(config);
        self.servers.swap_remove(index);
    }

    /// Restarts a server in its slot with a whole command line.
    pub(crate) fn restart_by(&mut self, index: usize, serve: &mut Command) {
        self.kill(index);
        self.serve_command(serve);
        self.servers.swap_remove(index);
    }

    pub(crate) fn serve(&mut self) {
        self.serve_from("web.toml");
    }

    pub(crate) fn serve_from(&mut self, config: &str) {
        self.serve_with(config, &[]);
    }

    pub(crate) fn serve_with(&mut self, config: &str, more: &[&str]) {
        let mut serve = Command::new(&self.exe);
        serve
            .args(["serve", "--config"])
            .arg(self.path(config))
            .args(more);
        self.serve_command(&mut serve);
    }

    /// Starts one more server with its whole command line, and returns its URL.
    pub(crate) fn serve_command(&mut self, serve: &mut Command) -> String {
        let mut child = serve
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        // Kept first, so that it is killed even if its first line is wrong.
        self.servers.push((child, String::new()));
        let (tell, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut url = String::new();
            let _ = BufReader::new(stdout).read_line(&mut url);
            let _ = tell.send(url);
        });
        let url = heard.recv_timeout(LIMIT).unwrap_or_default();
        assert!(url.starts_with("http://127.0.0.1:"), "{url:?}");
        let url = url.trim().to_owned();
        self.servers.last_mut().unwrap().1.clone_from(&url);
        url
    }

    pub(crate) fn exe(&self) -> &Path {
        &self.exe
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        write(&self.path(name), text)
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.path("web.toml")).unwrap()
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    pub(crate) fn pid(&self, index: usize) -> i32 {
        i32::try_from(self.servers[index].0.id()).unwrap()
    }

    pub(crate) fn url(&self, index: usize) -> &str {
        &self.servers[index].1
    }

    pub(crate) fn signal(&self, index: usize, signal: Signal) {
        kill(Pid::from_raw(self.pid(index)), signal).unwrap();
    }

    pub(crate) fn stop(&self, index: usize) {
        self.signal(index, Signal::SIGSTOP);
        let stopped = || {
            std::fs::read_to_string(format!("/proc/{}/status", self.pid(index)))
                .unwrap()
                .contains("State:\tT")
        };
        until("it is stopped", stopped);
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.servers
            .iter()
            .map(|(_, url)| get(url, "/").1)
            .collect()
    }

    pub(crate) fn attempts(&self) -> Vec<u64> {
        self.servers.iter().map(|(_, url)| serde_json::from_str::<Value>(&get(url, "/-/config").1).unwrap()["last_attempt"]["seq"].as_u64().unwrap()).collect()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .arg("broadcast")
            .arg("--fleet")
            .arg(self.path("fleet.toml"))
            .arg("--state")
            .arg(self.path("state"))
            .args(args);
        command
    }

    pub(crate) fn broadcast(&self, args: &[&str]) -> CommandResult {
        CommandResult::of(self.command(&["-o", "json"]).args(args))
    }

    /// Runs `resume` or `revert`.
    pub(crate) fn continue_run(&self, verb: &str, args: &[&str]) -> CommandResult {
        CommandResult::of(
            Command::new(&self.exe)
                .arg(verb)
                .args(["-o", "json", "--state"])
                .arg(self.path("state"))
                .args(args),
        )
    }

    pub(crate) fn status(&self) -> CommandResult {
        CommandResult::of(
            self.read_only("status")
                .args(["-o", "json", "--state"])
                .arg(self.path("state")),
        )
    }

    pub(crate) fn doctor(&self, args: &[&str]) -> CommandResult {
        CommandResult::of(self.read_only("doctor").args(["-o", "json"]).args(args))
    }

    /// Returns a read-only command.
    pub(crate) fn read_only(&self, command: &str) -> Command {
        let mut look = Command::new(&self.exe);
        look.arg(command)
            .arg("--fleet")
            .arg(self.path("fleet.toml"));
        look
    }
}

impl CommandResult {
    pub(crate) fn of(command: &mut Command) -> Self {
        let CommandEnd { code, json, stderr } = run_to_end(command);
        Self {
            code: code.unwrap(),
            json,
            stderr,
        }
    }

    /// Waits for a command that was started with pipes.
    pub(crate) fn wait_for(command: Child) -> Self {
        let output = command.wait_with_output().unwrap();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Self {
            code: output.status.code().unwrap(),
            json,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn states(&self) -> Vec<&str> {
        let mut states: Vec<&str> = self.json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["outcome"].as_str().unwrap())
            .collect();
        states.sort_unstable();
        states
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{:#}", self.stderr, self.json);
        self
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (child, _) in &mut self.servers {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The reasons to skip that are no failure under `CI=true`, each with its cause. `tests/run` cannot
/// install these things.
const CI_CANNOT_HAVE: &[(&str, &str)] = &[
    (
        ONE_PROCESSOR,
        "the number of processors is a property of the machine",
    ),
    (
        NO_TIME_NAMESPACE,
        "time namespaces are an option of the kernel (CONFIG_TIME_NS)",
    ),
];

/// The reason to skip a test that needs two processes to run at the same time.
pub(crate) const ONE_PROCESSOR: &str = "this machine has one processor";

/// The reason to skip a test of an instance with another clock.
pub(crate) const NO_TIME_NAMESPACE: &str = "no time namespace can be created";

/// Returns whether the tests run as root. Reports the caller as skipped if not.
pub(crate) fn runs_as_root(why: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped(why);
    }
    root
}

/// Reports that a test, or a part of it, cannot run on this machine.
/// Fails under `CI=true`, except for a reason in `CI_CANNOT_HAVE`.
/// `tests/run` collects the reasons in the file that `HELLO_TEST_SKIPPED` names.
pub(crate) fn skipped(why: &str) {
    let name = thread::current().name().unwrap_or("?").to_owned();
    let exempt = CI_CANNOT_HAVE.iter().find(|(reason, _)| *reason == why);
    assert!(
        exempt.is_some() || std::env::var("CI").as_deref() != Ok("true"),
        "skipped, and CI=true: {why}"
    );
    let why = exempt.map_or_else(|| why.to_owned(), |(_, cause)| format!("{why}: {cause}"));
    eprintln!("skipped: {why}");
    if let Some(list) = std::env::var_os("HELLO_TEST_SKIPPED") {
        let mut list = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(list)
            .unwrap();
        // One write, so that parallel tests do not mix their lines.
        list.write_all(format!("{name}: {why}\n").as_bytes())
            .unwrap();
    }
}

/// Removes the variables that cargo sets and those that name the working directory. Their values
/// would be masked in the output of a validator.
pub(crate) fn without_cargo(command: &mut Command) -> &mut Command {
    let cwd = std::env::current_dir().unwrap();
    for (name, _) in std::env::vars_os()
        .filter(|(name, value)| name.to_string_lossy().starts_with("CARGO") || *value == *cwd)
    {
        command.env_remove(name);
    }
    command
}

pub(crate) fn write(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    // The umask of the tester must not decide whether a fleet.toml is trusted.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    path.to_owned()
}

/// Requests `path`. Returns the head in lower case, and the body.
pub(crate) fn get(url: &str, path: &str) -> (String, String) {
    try_get(url, path).unwrap()
}

/// Requests `path` of a server that may not be up yet.
pub(crate) fn try_get(url: &str, path: &str) -> std::io::Result<(String, String)> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream =
        TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(20))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // In one piece: a second small segment would wait for the acknowledgement of the first.
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head.to_lowercase(), body.to_owned()))
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a run that has staged a config and waits for its validator. The run has not begun then.
pub(crate) fn kill_while_validating(fleet: &Fleet) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let (there, script) = (fleet.path("validates"), fleet.path("slow-validator"));
    let _ = std::fs::remove_file(&there);
    // It ends with the descriptor that the run holds.
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\ntouch /proc/$PPID/root'{}'\nexec sleep 30\n",
            there.display()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("validate"))
        .collect();
    let slow = group.join("\n").replacen(
        "[[group]]",
        &format!(
            "[[group]]\nvalidate = [{:?}, \"{{candidate}}\"]",
            script.to_str().unwrap()
        ),
        1,
    );
    fleet.write("fleet.toml", &slow);
    let mut run = fleet
        .command(&["-q", "--set", "message=staged"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it validates", || {
        there.exists() || run.try_wait().unwrap().is_some()
    });
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(there.exists(), "it ended before it validated");
    fleet.write("fleet.toml", &text);
}

/// Runs a command to its end and returns its result.
pub(crate) fn run_to_end(command: &mut Command) -> CommandEnd {
    CommandEnd::of(&output(command))
}

/// Runs a command to its end. Kills it by its pid after `RUN_LIMIT`.
fn output(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (tell, heard) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    match heard.recv_timeout(RUN_LIMIT) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            let stderr = match heard.recv_timeout(RUN_LIMIT) {
                Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).into_owned(),
                _ => "its pipes stay open".to_owned(),
            };
            panic!("not within {RUN_LIMIT:?}: {command:?}\n{stderr}")
        }
    }
}
