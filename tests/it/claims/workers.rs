//! Workers that prove a reload, and workers that invalidate every other proof.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::server::{
    CONTAINS, EQUALS, INCREASED, PATIENT, WORKERS, each, fleet, holds, outcome, set, state,
};

use crate::support::{Fleet, get};

/// A server that keeps its first message. On the signal it restarts its helpers, which do not
/// listen.
const UMBRELLA: &str = r#"
import signal, socket, subprocess, sys
config, count = sys.argv[1], int(sys.argv[2])
body = open(config).read().split('"')[1].encode()
helpers = lambda: [subprocess.Popen(["sleep", "60"]) for _ in range(count)]
hung, all = [], helpers()
signal.signal(signal.SIGHUP, lambda *_: hung.append(1))
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
s = socket.create_server(("127.0.0.1", 0))
s.settimeout(0.02)
print("http://127.0.0.1:%d/" % s.getsockname()[1], flush=True)
try:
    while True:
        if hung:
            hung.clear()
            # All but the last are replaced: one that is not would still work for the old config.
            for one in all[:-1] or all[:0]: one.kill(); one.wait()
            all = all[-1:] + helpers()
        try: c, _ = s.accept()
        except OSError: continue
        c.recv(4096)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        c.close()
finally:
    for one in all: one.kill()
"#;

/// The umbrella process. Killed by its pid when dropped.
struct Umbrella(Child, String);

impl Umbrella {
    fn start(fleet: &Fleet, helpers: u32) -> Self {
        let script = fleet.write("umbrella.py", UMBRELLA);
        let mut child = Command::new("python3")
            .arg(script)
            .arg(fleet.path("web.toml"))
            .arg(helpers.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self(child, url.trim().to_owned())
    }
}

impl Drop for Umbrella {
    fn drop(&mut self) {
        // It ends its helpers.
        let _ = kill(
            Pid::from_raw(i32::try_from(self.0.id()).unwrap()),
            Signal::SIGTERM,
        );
        let _ = self.0.wait();
    }
}

/// A master whose only child listens. The child reads the config itself if the master forwards the
/// signal.
const KID: &str = r#"
import os, signal, socket, sys
config, reads = sys.argv[1], sys.argv[2] == "reads"
master = os.getpid()
signal.signal(signal.SIGHUP, lambda *_: hung.append(1))
hung, kid = [], os.fork()
if kid:
    signal.signal(signal.SIGHUP, lambda *_: os.kill(kid, signal.SIGHUP))
    os.waitpid(kid, 0)
    sys.exit()
read = lambda: open(config).read().split('"')[1].encode()
body = read()
s = socket.create_server(("127.0.0.1", 0))
s.settimeout(0.02)
print("http://127.0.0.1:%d/" % s.getsockname()[1], flush=True)
while os.getppid() == master:
    if hung:
        hung.clear()
        body = read() if reads else body
    try: c, _ = s.accept()
    except OSError: continue
    c.recv(4096)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    c.close()
"#;

#[test]
fn the_only_listening_child_proves_its_own_config() {
    each(
        &[("reads", 0, "confirmed"), ("keeps", 7, "revert_failed")],
        |(does, code, state)| {
            let fleet = Fleet::start(0);
            let script = fleet.write("kid.py", KID);
            let mut child = Command::new("python3")
                .arg(&script)
                .arg(fleet.path("web.toml"))
                .arg(does)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut url = String::new();
            BufReader::new(child.stdout.take().unwrap())
                .read_line(&mut url)
                .unwrap();
            let kid = Umbrella(child, url.trim().to_owned());
            let (config, listen) = (
                fleet.path("web.toml"),
                kid.1
                    .trim_start_matches("http://")
                    .trim_end_matches('/')
                    .to_owned(),
            );
            let head = format!(
                "version = 1\n[[group]]\nname = \"k\"\nmatch = {{ args = [\"{}\"] }}\nconfig = \"{}\"",
                script.display(),
                config.display()
            );
            fleet.write("fleet.toml", &format!("{head}\nlisten = [\"tcp:{listen}\"]\nreloads = true\ntimeout = \"1s\"\n{EQUALS}"));
            let result = set(&fleet, "two", if *code == 0 { PATIENT } else { &[] }).expect(*code);
            assert_eq!(result.states(), [*state], "{:#}", result.json);
            assert_eq!(get(&kid.1, "/").1, if *code == 0 { "two" } else { "one" });
        },
    );
}

#[test]
fn new_children_that_do_not_listen_prove_nothing() {
    each(&[1, 2], |helpers| {
        let fleet = Fleet::start(0);
        let umbrella = Umbrella::start(&fleet, *helpers);
        let (script, config) = (fleet.path("umbrella.py"), fleet.path("web.toml"));
        let head = format!(
            "version = 1\n[[group]]\nname = \"u\"\nmatch = {{ args = [\"{}\"] }}\nconfig = \"{}\"",
            script.display(),
            config.display()
        );
        fleet.write(
            "fleet.toml",
            &format!("{head}\nreloads = true\ntimeout = \"1s\"\n{WORKERS}"),
        );
        let result = set(&fleet, "two", &[]);
        assert!(matches!(result.code, 5 | 7), "{:#}", result.json);
        assert!(
            !result
                .states()
                .iter()
                .any(|state| matches!(*state, "confirmed" | "reverted")),
            "{:#}",
            result.json
        );
        assert_eq!(get(&umbrella.1, "/").1, "one");
    });
}

#[test]
fn no_answer_is_proof_while_an_old_worker_accepts_connections() {
    each(&[EQUALS, CONTAINS, INCREASED, WORKERS], |facts| {
        // One answer would be enough, so chance alone could prove it.
        let (fleet, servers) = fleet(&[("KeepsWorker", 0)], &format!("samples = 1\n{facts}"));
        let result = set(&fleet, "two", &[]).expect(7);
        let one = outcome(&result, &servers[0]);
        assert_eq!(
            (&one["outcome"], &one["proof"]),
            (&"revert_failed".into(), &serde_json::Value::Null),
            "{facts}: {one:#}"
        );
        // A worker of an earlier run accepts as well. By chance it answers before the run.
        let result = set(&fleet, "three", &["--include-unresponsive"]).expect(7);
        assert_eq!(state(&result, &servers[0]), "revert_failed", "{facts}");
    });
}

#[test]
fn workers_that_end_after_their_replacement_do_not_prevent_the_proof() {
    each(&[("true", 0), ("false", 6)], |(gate, code)| {
        let (fleet, servers) = fleet(
            &[("Workers", 0), ("Workers", 0)],
            &format!("{EQUALS}[group.rollout]\ngate = [\"{gate}\"]"),
        );
        let result = set(&fleet, "two", PATIENT).expect(*code);
        holds(&result, &servers);
    })
}
