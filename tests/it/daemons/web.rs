//! Servers with a leader and workers, and sshd, which re-executes itself.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{Daemon, command, folder, free_port, listening, need, program, started, words};
use crate::support::{try_get, until, write};

/// The time limit for one answer. A busy machine needs seconds.
const ANSWER: Duration = Duration::from_secs(20);

/// A daemon that serves one word of its config on a loopback port.
pub(crate) struct Web {
    pub(crate) daemon: Daemon,
    pub(crate) port: u16,
    pub(super) sort: &'static Sort,
}

/// The properties of one program.
pub(super) struct Sort {
    /// The kind in `hello`.
    pub(super) kind: &'static str,
    /// The `match` key for this daemon alone, from the folder and the port.
    pub(super) matching: fn(&Path, u16) -> String,
    /// The log file and the words that report a reload.
    pub(super) tells: (&'static str, &'static str),
    /// The words of a worker that got the signal. `None` if a worker would end.
    pub(super) struck: Option<&'static str>,
    /// The path of its config in the daemon's folder.
    pub(super) file: &'static str,
    /// The text of that config, from the folder, the port and the word.
    pub(super) text: fn(&Path, u16, &str) -> String,
    /// Reads its word over a fresh connection.
    pub(super) ask: fn(u16) -> Option<String>,
    /// The number of its children while it serves, without those for connections.
    pub(super) workers: usize,
    /// A request whose answer begins and does not end by itself.
    pub(super) open: &'static str,
}

impl Web {
    /// Waits until it answers. Fails with its log if it ends before.
    pub(super) fn start(sort: &'static Sort, port: u16, daemon: Daemon) -> Self {
        let web = Self { daemon, port, sort };
        until("it answers", || {
            let runs = web.daemon.runs();
            let result = web.word();
            assert!(result.is_some() || runs, "it ended: {}", web.daemon.log());
            result.is_some()
        });
        until("all its workers run", || {
            web.daemon.children().len() >= sort.workers
        });
        until("it takes the signal", || web.takes_sighup());
        web
    }

    /// Whether SIGHUP has a handler and is not blocked. HAProxy loses a signal while it loads.
    pub(crate) fn takes_sighup(&self) -> bool {
        let status = procfs::process::Process::new(self.daemon.pid())
            .unwrap()
            .status()
            .unwrap();
        status.sigcgt & 1 == 1 && status.sigblk & 1 == 0
    }

    /// The live config.
    pub(crate) fn file(&self) -> PathBuf {
        self.daemon.path(self.sort.file)
    }

    /// Returns a config for `word`.
    pub(crate) fn config(&self, word: &str) -> String {
        (self.sort.text)(self.daemon.dir.path(), self.port, word)
    }

    /// Returns the word over a fresh connection. `None` also if nothing listens.
    pub(crate) fn word(&self) -> Option<String> {
        (self.sort.ask)(self.port)
    }

    /// Opens a connection whose answer has begun: it keeps one process busy.
    pub(crate) fn open(&self) -> TcpStream {
        let mut stream = connect(self.port).unwrap();
        stream.write_all(self.sort.open.as_bytes()).unwrap();
        assert!(stream.read(&mut [0; 16]).unwrap() > 0);
        stream
    }
}

pub(super) fn connect(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    Some(stream)
}

pub(super) fn body(port: u16) -> Option<String> {
    try_get(&format!("127.0.0.1:{port}"), "/")
        .ok()
        .map(|(_, body)| body)
}

pub(super) static NGINX: Sort = Sort {
    kind: "nginx",
    // It matches its workers too.
    matching: |_, port| format!("{{ exe = \"nginx\", port = {port} }}"),
    tells: ("error.log", ", reconfiguring"),
    struck: Some(", ignoring"),
    workers: 2,
    file: "etc/nginx.conf",
    text: |dir, port, word| {
        let dir = dir.display();
        format!(
            "daemon off;\nuser root;\nworker_processes 2;\npid {dir}/pid;\nerror_log {dir}/error.log notice;\nevents {{ worker_connections 64; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path {dir}/tmp; proxy_temp_path {dir}/tmp; fastcgi_temp_path {dir}/tmp;\n  \
             uwsgi_temp_path {dir}/tmp; scgi_temp_path {dir}/tmp;\n  server {{\n    listen 127.0.0.1:{port};\n    \
             location / {{ return 200 {word}; }}\n    location = /slow {{ alias {dir}/slow; limit_rate 1; }}\n  }}\n}}\n"
        )
    },
    ask: body,
    open: "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
};

/// Starts nginx with two workers. Its `etc` holds only `nginx.conf`.
pub(crate) fn nginx() -> Option<Web> {
    need("nginx").then(|| nginx_by(Command::new(program("nginx").unwrap())))
}

/// Mounts another directory over `etc`.
pub(crate) const OTHER_DIRECTORY: &str = "mount --bind other etc";
/// Mounts another file over the config.
pub(crate) const OTHER_FILE: &str = "mount --bind other/nginx.conf etc/nginx.conf";
/// Mounts the config file alone, as in a container. The process never sees an exchange in its
/// directory.
pub(crate) const FILE_ALONE: &str = "mkdir kept; touch kept/it; mount --bind etc/nginx.conf kept/it
mount -t tmpfs none etc; touch etc/nginx.conf; mount --bind kept/it etc/nginx.conf";

/// Starts nginx in a new mount namespace after `sh` has run `mounts` in its folder. `etc` holds the
/// config, `other` a config with the word `other`. Returns `None` also without such a namespace.
pub(crate) fn nginx_behind(mounts: &str) -> Option<Web> {
    if !need("nginx") {
        return None;
    }
    if !Command::new("unshare")
        .args(["--mount", "true"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        crate::support::skipped("no mount namespace is to be had");
        return None;
    }
    let mut unshare = Command::new("unshare");
    unshare
        .args([
            "--mount",
            "sh",
            "-c",
            &format!("set -e\n{mounts}\nexec \"$@\""),
            "sh",
        ])
        .arg(program("nginx").unwrap());
    Some(nginx_by(unshare))
}

fn nginx_by(mut command: Command) -> Web {
    let (dir, port) = (folder(), free_port());
    for (place, word) in [("etc", "one"), ("other", "other")] {
        std::fs::create_dir(dir.path().join(place)).unwrap();
        write(
            &dir.path().join(place).join("nginx.conf"),
            &(NGINX.text)(dir.path(), port, word),
        );
    }
    write(&dir.path().join("slow"), &"x".repeat(1 << 16));
    command
        .arg("-p")
        .arg(dir.path())
        .arg("-c")
        .arg(dir.path().join(NGINX.file));
    Web::start(&NGINX, port, Daemon::spawn(dir, &mut command))
}

pub(super) static HAPROXY: Sort = Sort {
    kind: "haproxy",
    matching: |dir, _| {
        format!(
            "{{ exe = \"haproxy\", args = [[\"-W\", \"-Ws\"], \"{}/haproxy.cfg\"] }}",
            dir.display()
        )
    },
    tells: ("log", "Reloading HAProxy"),
    struck: Some("SIGHUP received, dumping"),
    workers: 1,
    file: "haproxy.cfg",
    text: |_, port, word| {
        format!(
            "defaults\n  mode http\n  timeout client 5m\n  timeout server 5m\n  timeout connect 5s\nfrontend web\n  bind 127.0.0.1:{port}\n  \
             http-request wait-for-body time 5m if {{ path /slow }}\n  http-request return status 200 content-type text/plain string {word}\n"
        )
    },
    ask: body,
    // It sends `100 Continue` and waits for the body.
    open: "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
};

/// Starts HAProxy with a master and one worker.
pub(crate) fn haproxy() -> Option<Web> {
    need("haproxy").then(|| {
        let (dir, port) = (folder(), free_port());
        let config = write(
            &dir.path().join(HAPROXY.file),
            &(HAPROXY.text)(dir.path(), port, "one"),
        );
        Web::start(
            &HAPROXY,
            port,
            Daemon::spawn(dir, command("haproxy").args(["-W", "-f"]).arg(config)),
        )
    })
}

static GUNICORN: Sort = Sort {
    kind: "gunicorn",
    matching: |dir, _| {
        format!(
            "{{ script = \"gunicorn\", args = [\"{}/gunicorn.conf.py\"] }}",
            dir.display()
        )
    },
    tells: ("log", "Handling signal: hup"),
    struck: Some("terminated due to signal 1\n"),
    workers: 2,
    file: "gunicorn.conf.py",
    text: |dir, port, word| {
        let dir = dir.display();
        format!(
            "wsgi_app = \"app:app\"\nchdir = \"{dir}\"\nbind = \"127.0.0.1:{port}\"\nworkers = 2\nraw_env = [\"WORD={word}\"]\n"
        )
    },
    ask: body,
    open: "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
};

/// The same behind the title that it writes with setproctitle. The title hides where its config is,
/// so that its group names it.
static TITLED: Sort = Sort {
    kind: "gunicorn",
    matching: |dir, port| {
        format!(
            "{{ port = {port} }}\nconfig = \"{}/gunicorn.conf.py\"",
            dir.display()
        )
    },
    tells: ("log", "Handling signal: hup"),
    struck: Some("terminated due to signal 1\n"),
    workers: 2,
    file: "gunicorn.conf.py",
    text: |dir, port, word| (GUNICORN.text)(dir, port, word),
    ask: body,
    open: "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
};

/// An app whose `/slow` begins its answer, and ends it once the file `go` exists.
const APP: &str = r#"import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        start_response("200 OK", [])
        return slow()
    word = os.environ["WORD"].encode()
    start_response("200 OK", [("Content-Length", str(len(word)))])
    return [word]

def slow():
    yield b"x"
    while not os.path.exists("go"):
        time.sleep(0.02)
"#;

/// Starts gunicorn with two workers. The app is `app.py`.
pub(crate) fn gunicorn() -> Option<Web> {
    // Python takes a config of the same size and second for the one that it has compiled before.
    need("gunicorn").then(|| {
        let mut command = command("gunicorn");
        gunicorn_by(&GUNICORN, command.env("PYTHONDONTWRITEBYTECODE", "1"))
    })
}

/// Starts gunicorn so that it writes a title over its command line. It does where the package
/// python3-setproctitle is installed.
pub(super) fn gunicorn_titled() -> Option<Web> {
    need("gunicorn").then(|| {
        let mut command = command("gunicorn");
        gunicorn_by(&TITLED, command.env("PYTHONDONTWRITEBYTECODE", "1"))
    })
}

/// Does the same, and Python keeps its compiled files.
pub(super) fn gunicorn_that_caches() -> Option<Web> {
    need("gunicorn").then(|| {
        let mut command = command("gunicorn");
        gunicorn_by(&GUNICORN, command.env_remove("PYTHONDONTWRITEBYTECODE"))
    })
}

fn gunicorn_by(sort: &'static Sort, command: &mut Command) -> Web {
    let (dir, port) = (folder(), free_port());
    if std::ptr::eq(sort, &GUNICORN) {
        // A module that cannot be imported stands for one that is not installed.
        let hidden = dir.path().join("no-title");
        std::fs::create_dir(&hidden).unwrap();
        write(&hidden.join("setproctitle.py"), "raise ImportError\n");
        command.env("PYTHONPATH", hidden);
    }
    write(&dir.path().join("app.py"), APP);
    let config = write(
        &dir.path().join(sort.file),
        &(sort.text)(dir.path(), port, "one"),
    );
    Web::start(
        sort,
        port,
        Daemon::spawn(dir, command.arg("-c").arg(config)),
    )
}

static SSHD: Sort = Sort {
    kind: "sshd",
    matching: |dir, _| {
        format!(
            "{{ exe = \"sshd\", args = [\"{}/sshd_config\"] }}",
            dir.display()
        )
    },
    tells: ("log", "Received SIGHUP; restarting."),
    struck: None,
    workers: 0,
    file: "sshd_config",
    text: |dir, port, word| {
        let dir = dir.display();
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/hostkey\nPidFile {dir}/pid\nUsePAM no\nMaxStartups 100\nVersionAddendum {word}\n"
        )
    },
    ask: |port| {
        let mut banner = String::new();
        // The peer keeps talking. The first line is enough.
        std::io::BufRead::read_line(&mut std::io::BufReader::new(connect(port)?), &mut banner)
            .ok()?;
        banner
            .trim_end()
            .rsplit_once(' ')
            .map(|(_, word)| word.to_owned())
    },
    // The server speaks first.
    open: "",
};

/// Starts sshd with its own host key. The word is in its banner.
pub(crate) fn sshd() -> Option<Web> {
    let there = need("sshd") && need("ssh-keygen");
    there.then(|| {
        let (dir, port) = (folder(), free_port());
        if nix::unistd::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        assert!(
            command("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.path().join("hostkey"))
                .status()
                .unwrap()
                .success()
        );
        let config = write(
            &dir.path().join(SSHD.file),
            &(SSHD.text)(dir.path(), port, "one"),
        );
        // A newer sshd soon refuses a client that only reads banners. An older one does not know
        // this option.
        const PATIENT: [&str; 2] = ["-o", "PerSourcePenalties=no"];
        let knows = command("sshd")
            .arg("-t")
            .args(PATIENT)
            .arg("-f")
            .arg(&config)
            .output()
            .unwrap()
            .status
            .success();
        let mut command = command("sshd");
        command
            .args(["-D", "-e", "-f"])
            .arg(config)
            .args(if knows { &PATIENT[..] } else { &[] });
        Web::start(&SSHD, port, Daemon::spawn(dir, &mut command))
    })
}

/// Signals the daemon after a config change to `word`, and waits until it serves that.
fn reload(web: &Web, word: &str) {
    write(&web.file(), &web.config(word));
    until("it takes the signal", || web.takes_sighup());
    web.daemon.signal(Signal::SIGHUP);
    until("the new word is served", || {
        web.word().as_deref() == Some(word)
    });
}

/// Returns the old child that stays after a reload because of its client, and the new children.
fn busy_and_new(web: &Web, old: &[i32]) -> (i32, Vec<i32>) {
    let split = || -> (Vec<i32>, Vec<i32>) {
        web.daemon
            .children()
            .into_iter()
            .partition(|pid| old.contains(pid))
    };
    let (mut stay, mut new) = split();
    until("only the busy one is left, and all new ones run", || {
        (stay, new) = split();
        (stay.len(), new.len()) == (1, web.sort.workers)
    });
    assert!(new.iter().all(|pid| listening(*pid).len() == 1), "{new:?}");
    (stay[0], new)
}

#[test]
fn nginx_replaces_its_workers_and_a_draining_worker_closes_its_socket() {
    let Some(web) = nginx() else { return };
    let (old, sockets) = (web.daemon.children(), listening(web.daemon.pid()));
    assert_eq!(
        (old.len(), sockets.len(), web.word().as_deref()),
        (2, 1, Some("one"))
    );
    let open = web.open();
    reload(&web, "two");
    let (busy, _) = busy_and_new(&web, &old);
    until("it drains", || {
        words(busy)
            .join(" ")
            .ends_with("worker process is shutting down")
            && listening(busy).is_empty()
    });
    assert_eq!(listening(web.daemon.pid()), sockets);
    assert!(words(web.daemon.pid()).contains(&web.file().display().to_string()));
    drop(open);
    until("it is gone", || started(busy).is_none());
}

#[test]
fn haproxy_hands_its_socket_to_a_new_worker_and_its_master_re_executes_itself() {
    let Some(web) = haproxy() else { return };
    let (old, was) = (web.daemon.children(), started(web.daemon.pid()));
    let sockets = listening(old[0]);
    assert_eq!(
        (old.len(), sockets.len(), listening(web.daemon.pid()).len()),
        (1, 1, 0)
    );
    let open = web.open();
    reload(&web, "two");
    let (busy, new) = busy_and_new(&web, &old);
    assert_eq!(
        (listening(new[0]), started(web.daemon.pid())),
        (sockets, was)
    );
    until("the old worker listens no more", || {
        listening(busy).is_empty()
    });
    assert!(
        words(new[0]).contains(&"-sf".to_owned()),
        "{:?}",
        words(new[0])
    );
    drop(open);
    until("it is gone", || started(busy).is_none());
}

#[test]
fn gunicorn_replaces_its_workers_and_a_draining_one_still_holds_the_socket() {
    let Some(web) = gunicorn() else { return };
    let (old, sockets) = (web.daemon.children(), listening(web.daemon.pid()));
    let open = web.open();
    reload(&web, "two");
    let (busy, new) = busy_and_new(&web, &old);
    assert_eq!(
        (
            listening(busy),
            listening(new[0]),
            listening(web.daemon.pid())
        ),
        (sockets.clone(), sockets.clone(), sockets)
    );
    web.daemon.write("go", "");
    until("it is gone", || started(busy).is_none());
    drop(open);
}

#[test]
fn gunicorn_without_a_kind_is_reloaded_by_a_complete_group() {
    let Some(web) = gunicorn() else { return };
    let config = web.file().display().to_string();
    let group = format!(
        "name = \"app\"\nmatch = {{ exe = \"python3*\", args = [\"-c\", \"{config}\"] }}\nconfig = \"{{arg:-c}}\"\nreloads = true\ntimeout = \"20s\"\n\
         [[group.confirm]]\nhttp = \"http://{{listen}}/\"\nequals = \"three\"\n"
    );
    web.daemon
        .write("fleet.toml", &format!("version = 1\n[[group]]\n{group}"));
    assert_eq!(
        web.daemon.status().expect(0).json["instances"][0]["pid"],
        web.daemon.pid()
    );
    let new = web.daemon.write("new", &web.config("three"));
    let result = web
        .daemon
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    assert_eq!(
        (result.states(), web.word().as_deref()),
        (vec!["confirmed"], Some("three"))
    );
}

#[test]
fn sshd_re_executes_itself_with_a_new_socket_and_keeps_its_connections() {
    let Some(web) = sshd() else { return };
    let (was, sockets) = (started(web.daemon.pid()), listening(web.daemon.pid()));
    let open = web.open();
    until("only that connection is left", || {
        web.daemon.children().len() == 1
    });
    let old = web.daemon.children();
    assert_eq!(sockets.len(), 1);
    reload(&web, "two");
    assert_eq!(started(web.daemon.pid()), was);
    let new = listening(web.daemon.pid());
    assert!(new.len() == 1, "{new:?}");
    assert!(new != sockets, "{new:?}");
    assert!(started(old[0]).is_some());
    assert!(listening(old[0]).is_empty());
    drop(open);
    until("it is gone", || started(old[0]).is_none());
}

#[test]
fn an_nginx_with_private_mounts_reads_another_file() {
    for mounts in [OTHER_DIRECTORY, OTHER_FILE] {
        let Some(web) = nginx_behind(mounts) else {
            return;
        };
        let old = web.daemon.children();
        write(&web.file(), &web.config("two"));
        web.daemon.signal(Signal::SIGHUP);
        until("its workers are new", || {
            web.daemon.children().len() == 2
                && web.daemon.children().iter().all(|pid| !old.contains(pid))
        });
        assert_eq!(web.word().as_deref(), Some("other"));
    }
}

#[test]
fn an_nginx_with_a_bind_mounted_config_reads_the_old_file_after_an_exchange() {
    let Some(web) = nginx_behind(FILE_ALONE) else {
        return;
    };
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let within = PathBuf::from(format!("/proc/{}/root", web.daemon.pid()))
        .join(web.file().strip_prefix("/").unwrap());
    assert_eq!(
        (inode(&web.file()), web.word().as_deref()),
        (inode(&within), Some("one"))
    );
    let staged = write(&web.daemon.path("etc/staged"), &web.config("two"));
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        &staged,
        rustix::fs::CWD,
        web.file(),
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    assert_ne!(inode(&web.file()), inode(&within));
    let old = web.daemon.children();
    web.daemon.signal(Signal::SIGHUP);
    until("its workers are new", || {
        web.daemon.children().len() == 2
            && web.daemon.children().iter().all(|pid| !old.contains(pid))
    });
    assert_eq!(web.word().as_deref(), Some("one"));
}
