//! The servers: each is started, given a new message, and told to reload in its own way.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{
    ask,
    fleet::{Running, config, write},
    program,
};

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello,
    /// Another build of it.
    Before,
    Nginx,
    Go,
}

/// Which peers are there.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    before: Option<PathBuf>,
    nginx: Option<PathBuf>,
    go: Option<PathBuf>,
}

/// One that serves.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) kind: Kind,
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
    file: PathBuf,
    said: usize,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "`hello serve`",
            Self::Before => "`hello serve` of before",
            Self::Nginx => "nginx, 2 workers",
            Self::Go => "Go `net/http`",
        }
    }
}

impl Programs {
    /// Looks for nginx, and builds the server in Go.
    pub(crate) fn find(dir: &Path, before: Option<PathBuf>) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/serve/peer.go");
        let build = |go: PathBuf| {
            let peer = dir.join("peer");
            let mut command = Command::new(go);
            let cache = dir.join("go");
            command
                .args(["build", "-o"])
                .arg(&peer)
                .arg(source)
                .env("GOCACHE", &cache)
                .env("GOPATH", &cache)
                .env("GOFLAGS", "")
                .env("GO111MODULE", "off");
            assert!(command.status().unwrap().success());
            peer
        };
        Self {
            before,
            nginx: program("nginx", "nginx"),
            go: program("go", "golang-go").map(build),
        }
    }

    /// Those that are there, ours first.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let there = [
            (Kind::Hello, true),
            (Kind::Before, self.before.is_some()),
            (Kind::Nginx, self.nginx.is_some()),
            (Kind::Go, self.go.is_some()),
        ];
        there
            .into_iter()
            .filter_map(|(kind, there)| there.then_some(kind))
            .collect()
    }

    /// Starts one, its files at `dir/NAME.*`, and waits until it answers.
    pub(crate) fn start(&self, kind: Kind, dir: &Path, name: &str) -> Side {
        let file = dir.join(format!("{name}.conf"));
        let listen = match kind {
            Kind::Nginx => TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap(),
            _ => SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        write(&file, &text(kind, 0, listen, &dir.join(name)));
        let log = dir.join(format!("{name}.start.log"));
        let run = |program: &Path, args: &[&str]| {
            let mut command = Command::new(program);
            let stderr = std::fs::File::create(&log).unwrap();
            let process = Running::start(
                command
                    .args(args)
                    .arg(&file)
                    .stdout(Stdio::piped())
                    .stderr(stderr),
            );
            (process, listen)
        };
        let (mut process, mut address_of) = match kind {
            Kind::Hello => run(
                Path::new(env!("CARGO_BIN_EXE_hello")),
                &["serve", "--config"],
            ),
            Kind::Before => run(self.before.as_ref().unwrap(), &["serve", "--config"]),
            Kind::Nginx => run(self.nginx.as_ref().unwrap(), &["-c"]),
            Kind::Go => run(self.go.as_ref().unwrap(), &[]),
        };
        if kind == Kind::Nginx {
            drop(process.stdout());
        } else {
            address_of = process.address(&log);
        }
        let side = Side {
            kind,
            process,
            address: address_of,
            file,
            said: 0,
        };
        let deadline = Instant::now() + LIMIT;
        while !Client::open(side.address).is_ok_and(|mut client| client.ask().contains(&message(0)))
        {
            assert!(Instant::now() < deadline, "{kind:?} does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        side
    }
}

impl Side {
    /// Puts a new message in its file, in one step and not yet told; what it will answer then.
    pub(crate) fn change(&mut self) -> String {
        self.said += 1;
        let (text, new) = (
            text(
                self.kind,
                self.said,
                self.address,
                &self.file.with_extension(""),
            ),
            self.file.with_extension("new"),
        );
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.file).unwrap();
        message(self.said)
    }

    /// Waits until nothing is left of earlier reloads: nginx's old workers end when their last connection does.
    pub(crate) fn settle(&self) {
        let children = format!("/proc/{0}/task/{0}/children", self.process.pid());
        let deadline = Instant::now() + LIMIT;
        while self.kind == Kind::Nginx
            && std::fs::read_to_string(&children)
                .unwrap()
                .split_whitespace()
                .count()
                != 2
        {
            assert!(Instant::now() < deadline, "nginx keeps old workers");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// All messages are of one length.
fn message(n: usize) -> String {
    format!("hello, message {n:07}")
}

fn text(kind: Kind, n: usize, listen: SocketAddr, base: &Path) -> String {
    match kind {
        Kind::Hello | Kind::Before => config(&message(n)),
        Kind::Go => message(n),
        // The headers are as long as those of `hello serve`, and a connection is kept as long as there.
        Kind::Nginx => format!(
            "worker_processes 2; daemon off; pid {0}.pid; error_log /dev/null crit;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; default_type 'text/plain; charset=utf-8';
    client_body_temp_path {0}.1; proxy_temp_path {0}.2; fastcgi_temp_path {0}.3; uwsgi_temp_path {0}.4; scgi_temp_path {0}.5;
    server {{
        listen {listen};
        location / {{
            add_header X-Config-Sha256 {1:064}; add_header X-Config-Generation {2}; add_header X-Instance 12345:1234567;
            return 200 '{3}';
        }}
    }}
}}
",
            base.display(),
            n,
            n + 1,
            message(n)
        ),
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Client(std::net::TcpStream);

impl Client {
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        ask::connect(address).map(Self)
    }

    /// One answer, head and body; what fits no 4 KiB is none of ours.
    pub(crate) fn ask(&mut self) -> String {
        use std::io::{Read, Write};
        self.0
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let (mut buffer, mut filled) = ([0; 4096], 0);
        loop {
            let n = self.0.read(&mut buffer[filled..]).unwrap();
            assert!(n > 0, "the connection ended");
            filled += n;
            let said = std::str::from_utf8(&buffer[..filled]).unwrap();
            if let Some((_, body)) = said.split_once("\r\n\r\n")
                && body.len() == message(0).len()
            {
                return said.to_owned();
            }
        }
    }
}
