//! Real servers, ended by pid: when the bench is done, when it fails, and when it is told to end.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::{
        fd::AsFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Mutex, Once, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::ask;

const TMPFS: i64 = 0x0102_1994;
/// For a server's first line, and for its end.
const LIMIT: Duration = Duration::from_secs(60);

static DIR: OnceLock<PathBuf> = OnceLock::new();
static COUNTER: AtomicU32 = AtomicU32::new(0);
/// Processes that were started and not yet waited for: the kernel gives such a number to no other.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A process that does not outlive the bench.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        on_signal();
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        RUNNING
            .lock()
            .unwrap()
            .insert(child.id().try_into().unwrap());
        Self(child)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    /// The address that a server prints first, once; `log` is the file of its stderr.
    ///
    /// # Panics
    /// Panics if it prints no address, with how it ended and its stderr.
    pub(crate) fn address(&mut self, log: &Path) -> SocketAddr {
        let line = first_line(self.stdout());
        if let Some(address) = address(&line) {
            return address;
        }
        // A closed stdout is the end of a process, or a moment before it.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut ended = self.0.try_wait().unwrap();
        while ended.is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            ended = self.0.try_wait().unwrap();
        }
        let ended = ended.map_or_else(
            || "it still runs".to_owned(),
            |status| format!("it ended with {status}"),
        );
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let said = if said.is_empty() {
            "nothing".to_owned()
        } else {
            said
        };
        panic!(
            "server {} prints no URL but {line:?}; {ended}; on stderr: {said}",
            self.pid()
        );
    }

    /// Of one that was started with a pipe for it; once.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().unwrap()
    }

    pub(crate) fn signal(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGHUP).unwrap();
    }
}

impl Drop for Running {
    /// SIGTERM, so that one with workers takes them along.
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid());
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + LIMIT;
        while !matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
            if Instant::now() > deadline {
                let _ = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
        if let Ok(mut running) = RUNNING.lock() {
            running.remove(&pid.as_raw());
        }
    }
}

/// Without this a bench that is told to end would leave thousands behind.
fn on_signal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (mut read, write) = UnixStream::pair().unwrap();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::low_level::pipe::register(signal, write.try_clone().unwrap()).unwrap();
        }
        thread::spawn(move || {
            let _ = std::io::Read::read(&mut read, &mut [0]);
            for pid in RUNNING.lock().unwrap().iter() {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
            }
            let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTERM);
        });
    });
}

/// A folder on a disk: what is synced to memory costs nothing.
pub(crate) fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(
        DIR.get()
            .map_or(Path::new(env!("CARGO_TARGET_TMPDIR")), PathBuf::as_path),
    )
    .unwrap();
    assert_ne!(
        rustix::fs::statfs(dir.path()).unwrap().f_type as i64,
        TMPFS,
        "{} is in memory: name a disk with --dir",
        dir.path().display()
    );
    dir
}

/// Everything of the benches lies in this directory, and not in the build's.
pub(crate) fn lie_in(dir: PathBuf) {
    DIR.set(dir).unwrap();
}

/// The type of the filesystem, as the kernel names it; of an ext4 also whether it has a journal,
/// which decides what new files cost.
pub(crate) fn filesystem(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of = mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(1).zip(l.split(' ').nth(2)))
        .filter(|(at, _)| dir.starts_with(at));
    let kind = of
        .max_by_key(|(at, _)| at.len())
        .map_or_else(String::new, |(_, kind)| kind.to_owned());
    let device = std::fs::metadata(dir).map_or(0, |m| m.dev());
    let name = std::fs::read_link(format!(
        "/sys/dev/block/{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    ))
    .unwrap_or_default();
    let journal = name.file_name().and_then(|name| {
        std::fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task")).ok()
    });
    match journal.as_deref().map(str::trim) {
        Some("<none>") => format!("{kind} without a journal"),
        Some(_) => format!("{kind} with a journal"),
        None => kind,
    }
}

/// What the instances of a fleet read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Configs {
    /// One file for all.
    Shared,
    /// A file each, of one content.
    Equal,
    /// A file each, and no two alike.
    Different,
}

impl Configs {
    /// What the instance at this place reads, with this message.
    pub(crate) fn text(self, at: usize, message: &str) -> String {
        let own = if self == Self::Different {
            format!("# instance {at}\n")
        } else {
            String::new()
        };
        own + &config(message)
    }
}

/// Servers under an executable name of their own, and a `fleet.toml` that means them.
#[derive(Debug)]
pub(crate) struct Fleet {
    servers: Vec<(Running, SocketAddr)>,
    /// At most 15 bytes, which is all that the kernel keeps of a name.
    pub(crate) name: String,
    // Last: it goes when the servers are gone.
    dir: tempfile::TempDir,
}

impl Fleet {
    pub(crate) fn start(n: usize, configs: Configs) -> Self {
        let dir = folder();
        let name = format!(
            "hb{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        assert!(name.len() <= 15);
        // By another process: a descriptor open for writing here could be inherited, and the copy
        // then not be executed.
        assert!(
            Command::new("cp")
                .arg(env!("CARGO_BIN_EXE_hello"))
                .arg(dir.path().join(&name))
                .status()
                .unwrap()
                .success()
        );
        write(
            &dir.path().join("fleet.toml"),
            &format!(
                "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n"
            ),
        );
        let mut fleet = Self {
            servers: Vec::new(),
            name,
            dir,
        };
        let path = |at: usize| {
            fleet.path(&if configs == Configs::Shared {
                "web.toml".to_owned()
            } else {
                format!("web-{at}.toml")
            })
        };
        let paths: Vec<PathBuf> = (0..n).map(path).collect();
        let files = if configs == Configs::Shared {
            &paths[..1]
        } else {
            &paths
        };
        files
            .iter()
            .enumerate()
            .for_each(|(at, path)| write(path, &configs.text(at, "first")));
        // A few at a time, so that neither pipes nor memory run short.
        for some in paths.chunks(64) {
            let exe = fleet.path(&fleet.name);
            let start = |(at, path): (usize, &PathBuf)| {
                // Of a server that ends at its start this is the reason.
                let log = fleet.path(&format!("start-{at}.log"));
                let stderr = std::fs::File::create(&log).unwrap();
                (
                    Running::start(
                        Command::new(&exe)
                            .args(["serve", "--config"])
                            .arg(path)
                            .stdout(Stdio::piped())
                            .stderr(stderr),
                    ),
                    log,
                )
            };
            for (mut server, log) in some.iter().enumerate().map(start).collect::<Vec<_>>() {
                let address = server.address(&log);
                fleet.servers.push((server, address));
                // The next one at this place has a file of its own.
                std::fs::remove_file(log).unwrap();
            }
        }
        fleet
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn servers(&self) -> &[(Running, SocketAddr)] {
        &self.servers
    }

    /// Every instance must serve the bytes of the digest that belongs to its place.
    pub(crate) fn must_serve(&self, digest: impl Fn(usize) -> String + Sync) {
        let all: Vec<_> = self
            .servers
            .iter()
            .map(|(_, address)| address)
            .enumerate()
            .collect();
        ask::each(&all, |(at, address)| {
            assert_eq!(ask::digest(**address).unwrap(), digest(*at), "{address}")
        });
    }
}

impl Drop for Fleet {
    /// All are told first, and then waited for.
    fn drop(&mut self) {
        for (server, _) in &self.servers {
            let _ = kill(Pid::from_raw(server.pid()), Signal::SIGKILL);
        }
    }
}

pub(crate) fn config(message: &str) -> String {
    format!("message = \"{message}\"\nlisten = \"127.0.0.1:0\"\n")
}

/// Synced: what the disk still has to do must not be counted to the next side. The umask does not
/// decide whether it is trusted.
pub(crate) fn write(path: &Path, text: &str) {
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
        .unwrap();
    file.sync_all().unwrap();
}

/// What a server says first; the pipe is closed after it.
fn first_line(stdout: ChildStdout) -> String {
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    let said = poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
    assert!(said > 0, "a server says nothing");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    line
}

fn address(url: &str) -> Option<SocketAddr> {
    url.trim()
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .ok()
}
