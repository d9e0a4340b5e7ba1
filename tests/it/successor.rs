//! New processes: successors, newcomers, restarted instances and foreign listeners.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{CommandResult, Fleet, get, until};

/// A server of the message in its config. Its mode decides its action on the signal:
///
/// - `reload` reads the config again.
/// - `hand-over` starts a successor with its own socket, and ends when that answers.
/// - `hand-over-old` does the same, and the successor serves the old message.
/// - `hand-over-soon` does the same, and the successor ends a moment later.
/// - `restart` ends. Another process starts it again a moment later and writes the pid file.
/// - `die` ends.
/// - `keep` does nothing.
/// - `fork` forks a worker that continues to serve, and ends.
/// - `leave` reads the config again, and leaves an old worker of another program on its port, once.
const DAEMON: &str = r#"
import os, signal, socket, subprocess, sys, time
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
mode, config, pids = args["--mode"], args["--config"], args["--pids"]
message = lambda: open(config).read().split('"')[1]
while args.get("--waits", "") not in open(config).read(): time.sleep(0.02)
hung = []
def hup(*_):
    hung.append(1)
    open(pids + ".hung", "a").write("%d\n" % os.getpid())
signal.signal(signal.SIGHUP, hup)
fd = args.get("--fd")
if fd: s = socket.socket(fileno=int(fd))
else:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for _ in range(500):
        try: s.bind((args.get("--host", "127.0.0.1"), int(args.get("--port", 0)))); break
        except OSError: time.sleep(0.02)
    s.listen(64)
body = args.get("--says") or message()
open(pids, "a").write("%d\n" % os.getpid())
parent = os.getppid()
print("http://127.0.0.1:%d/" % s.getsockname()[1], flush=True)
# What it answered while the old one lives would be taken for that one's answer.
while fd and os.getppid() == parent: time.sleep(0.005)
# A worker that a reload could replace.
if mode == "fork" and os.fork() == 0:
    while os.getppid() != 1 and not os.path.exists(pids + ".hung"): time.sleep(0.02)
    os._exit(0)
s.settimeout(0.02)
until = time.monotonic() + float(args.get("--lives", 600))
def again(*more, **how):
    base = [sys.executable, sys.argv[0], "--mode", "reload" if mode != "hand-over" else mode, "--config", config, "--pids", pids]
    return subprocess.Popen(base + list(more), **how)
while time.monotonic() < until:
    if hung:
        hung.clear()
        if mode == "die": sys.exit(3)
        if mode == "keep": continue
        if mode == "fork":
            if os.fork(): os._exit(3)
            open(pids, "a").write("%d\n" % os.getpid())
            mode = "keep"
            continue
        if mode.startswith("hand-over"):
            more = ["--says", body] if mode != "hand-over" else []
            if mode == "hand-over-soon": more += ["--lives", "0.4"]
            child = again("--fd", str(s.fileno()), *more, pass_fds=[s.fileno()], stdout=subprocess.PIPE)
            child.stdout.readline()
            os._exit(0)
        if mode == "restart":
            port = s.getsockname()[1]
            s.close()
            if os.fork() == 0:
                os.setsid()
                time.sleep(0.3)
                child = again("--port", str(port), stdout=subprocess.DEVNULL)
                open(args["--pid-file"], "w").write("%d\n" % child.pid)
                os._exit(0)
            os._exit(0)
        if mode == "leave" and len(open(pids).readlines()) < 2 and os.fork() == 0:
            os.setsid()
            if os.fork(): os._exit(0)
            other = "import os,socket,sys,time;s=socket.socket();s.setsockopt(1,15,1);s.bind(('127.0.0.1',%d));s.listen(8);open(sys.argv[1],'a').write('%%d\\n'%%os.getpid());time.sleep(600)"
            os.execv(sys.executable, [sys.executable, "-c", other % s.getsockname()[1], pids])
        while mode == "leave" and len(open(pids).readlines()) < 2: time.sleep(0.01)
        body = message()
    try: c, _ = s.accept()
    except OSError: continue
    try:
        c.settimeout(2)
        asked = b""
        while b"\r\n\r\n" not in asked: asked += c.recv(4096) or b"\r\n\r\n"
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body.encode()))
        c.close()
        if args.get("--once"): sys.exit(0)
    except OSError: pass
"#;

/// A shell outside of the run. It starts a command once a validator asks for it, since the
/// validator ends all that it starts itself.
struct Outside(Child);

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the shell that starts `script`, and the lines of a validator that ask for it.
fn outside(fleet: &Fleet, script: &str) -> (Outside, String) {
    let dir = fleet.dir.path().display();
    for name in ["go", "went"] {
        let _ = std::fs::remove_file(fleet.path(name));
    }
    // The shell exists before the survey. Only its child comes later.
    let shell = format!(
        "while [ ! -e '{dir}/go' ]; do sleep 0.02; done\n{script} >/dev/null 2>&1 &\ntouch '{dir}/went'; wait"
    );
    let child = Command::new("sh")
        .args(["-c", &shell])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (
        Outside(child),
        format!(
            "#!/bin/sh\ntouch /proc/$PPID/root'{dir}/go'\nwhile [ ! -e /proc/$PPID/root'{dir}/went' ]; do sleep 0.02; done\n"
        ),
    )
}

/// A daemon with all that it started. Ended by pid when dropped.
struct Testbed {
    fleet: Fleet,
    child: Child,
    url: String,
}

impl Testbed {
    fn new(mode: &str, group: &str) -> Self {
        Self::with(mode, group, &[])
    }

    fn with(mode: &str, group: &str, more: &[&str]) -> Self {
        let fleet = Fleet::start(0);
        fleet.write("daemon.py", DAEMON);
        fleet.write("pid", "0\n");
        let mut command = Self::command(&fleet, mode);
        let mut child = command.args(more).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        let stdout = child.stdout.take().unwrap();
        fleet.write("pid", &format!("{}\n", child.id()));
        let testbed = |url: String| Self { fleet, child, url };
        // Kept first, so that it is ended even if its first line is wrong.
        let mut testbed = testbed(String::new());
        BufReader::new(stdout).read_line(&mut url).unwrap();
        testbed.url = url.trim().to_owned();
        assert!(testbed.url.starts_with("http://"), "{url:?}");
        let (script, dir) = (
            testbed.fleet.path("daemon.py"),
            testbed.fleet.dir.path().display(),
        );
        let group = group.replace("DIR", &dir.to_string());
        testbed.fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"d\"\nmatch = {{ script = \"{}\" }}\nconfig = \"{{arg:--config}}\"\nreloads = true\ntimeout = \"4s\"\nsamples = 1\n{group}\n\
                 [[group.confirm]]\nhttp = \"http://{{listen}}/\"\nequals = \"{{candidate.message}}\"\n", script.display()), );
        testbed
    }

    fn command(fleet: &Fleet, mode: &str) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(fleet.path("daemon.py"))
            .args(["--mode", mode, "--config"])
            .arg(fleet.path("web.toml"));
        command
            .arg("--pids")
            .arg(fleet.path("pids"))
            .arg("--pid-file")
            .arg(fleet.path("pid"))
            .stderr(Stdio::null());
        command
    }

    /// Replaces a text in `fleet.toml`.
    fn group(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.fleet.path("fleet.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        self.fleet.write("fleet.toml", &text.replace(from, to));
    }

    /// Returns every pid that the daemon or a process of it has had.
    fn pids(&self) -> Vec<i32> {
        std::fs::read_to_string(self.fleet.path("pids"))
            .unwrap_or_default()
            .lines()
            .map(|l| l.parse().unwrap())
            .collect()
    }

    fn set(&self, message: &str, code: i32) -> CommandResult {
        self.fleet
            .broadcast(&["--set", &format!("message={message}")])
            .expect(code)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.pids() {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // Only a process that still belongs to this test.
            if line.contains(&self.fleet.dir.path().display().to_string()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

#[test]
fn a_successor_must_prove_the_new_config() {
    let testbed = Testbed::new("hand-over", "");
    let old = testbed.pids()[0];
    let result = testbed.set("two", 0);
    let i = &result.json["instances"][0];
    let new = *testbed.pids().last().unwrap();
    assert!(new != old, "{i:#}");
    assert!(i["pid"] == new, "{i:#}");
    assert!(i["successor_of"] == old, "{i:#}");
    assert!(i["outcome"] == "confirmed", "{i:#}");
    assert!(
        result.stderr.contains(&format!("successor of pid {old}")),
        "{}",
        result.stderr
    );
    assert_eq!(get(&testbed.url, "/").1, "two");
    // It is an instance like any other.
    testbed.set("three", 0);
    assert_eq!(get(&testbed.url, "/").1, "three");
}

#[test]
fn a_successor_that_serves_the_old_config_is_not_confirmed() {
    let testbed = Testbed::new("hand-over-old", "");
    // It serves the old config all the time, which shows no end of a reload.
    let result = testbed.set("two", 7);
    let i = &result.json["instances"][0];
    assert!(
        i["successor_of"].is_i64() || i["pid"] != testbed.pids()[0],
        "{i:#}"
    );
    assert_eq!(
        (
            get(&testbed.url, "/").1.as_str(),
            testbed.fleet.text().contains("\"one\"")
        ),
        ("one", true)
    );
}

#[test]
fn a_process_restarted_under_the_pid_file_is_the_successor() {
    let testbed = Testbed::new("restart", "pid_file = \"DIR/pid\"");
    let result = testbed.set("two", 0);
    let i = &result.json["instances"][0];
    assert!(i["successor_of"] == testbed.pids()[0], "{i:#}");
    assert!(i["outcome"] == "confirmed", "{i:#}");
    assert_eq!(get(&testbed.url, "/").1, "two");
}

/// Returns the command that restarts the only instance, from the list of next commands.
fn to_type(result: &CommandResult) -> String {
    let line = result.json["instances"][0]["start"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        result.stderr.lines().any(|shown| shown.trim() == line),
        "{}",
        result.stderr
    );
    line
}

#[test]
fn an_instance_without_a_successor_is_dead_and_the_restart_command_is_shown() {
    let testbed = Testbed::new("die", "");
    let result = testbed.set("two", 7);
    assert_eq!(
        (
            &result.json["instances"][0]["outcome"],
            testbed.fleet.text().contains("\"one\"")
        ),
        (&"died".into(), true),
        "{:#}",
        result.json
    );
    let line = to_type(&result);
    assert!(line.starts_with("cd "), "{}", result.stderr);
    assert!(
        line.contains("daemon.py --mode die --config"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_dead_instance_is_revived_on_the_old_config() {
    let testbed = Testbed::new("die", "revive = [\"{exe}\", \"{args}\"]");
    let result = testbed.set("two", 6);
    let i = &result.json["instances"][0];
    assert!(i["outcome"] == "reverted", "{i:#}");
    assert!(i["successor_of"] == testbed.pids()[0], "{i:#}");
    assert_eq!(i["failure"]["kind"], "died");
    // It outlives its starter, in a session of its own.
    let new = i["pid"].as_i64().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{new}/stat")).unwrap();
    assert_eq!(
        stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap(),
        new.to_string(),
        "{stat}"
    );
    let bad = Testbed::new("die", "revive = [\"false\"]");
    let result = bad.set("two", 7);
    assert!(result.stderr.contains("`false` ended"), "{}", result.stderr);
}

#[test]
fn a_program_that_a_bad_config_ends_is_reloaded_without_a_validator_only_if_allowed() {
    let testbed = Testbed::new(
        "die",
        "on_bad_config = \"dies\"\nvalidate = \"none\"\nrevive = [\"{exe}\", \"{args}\"]",
    );
    let refused = testbed
        .fleet
        .broadcast(&["--set", "message=two", "--validate"])
        .expect(5);
    assert!(
        refused.stderr.contains("has no validator"),
        "{}",
        refused.stderr
    );
    assert!(!testbed.fleet.path("pids.hung").exists(), "not signalled");
    // The other modes of validation do not matter here.
    let result = testbed
        .fleet
        .broadcast(&["--set", "message=two", "--validate=off"])
        .expect(6);
    assert_eq!(
        result.json["instances"][0]["failure"]["kind"], "died",
        "{:#}",
        result.json
    );
    let result = testbed.set("three", 6);
    assert_eq!(
        result.json["instances"][0]["outcome"], "reverted",
        "{:#}",
        result.json
    );
    assert_eq!(
        get(
            result.json["instances"][0]["endpoint"].as_str().unwrap(),
            "/"
        )
        .1,
        "one"
    );
    let reload = Testbed::new(
        "reload",
        "on_bad_config = \"dies\"\nvalidate = \"none\"\nrevive = [\"{exe}\", \"{args}\"]",
    );
    let result = reload.set("two", 0);
    assert!(
        result
            .stderr
            .contains("declares that its program has no validator"),
        "{}",
        result.stderr
    );
    // Without `reloads`, or without a restart command, nothing is signalled.
    testbed.group("validate = \"none\"\n", "");
    assert!(
        testbed
            .set("four", 5)
            .stderr
            .contains("a bad config ends it")
    );
    testbed.group("revive = [\"{exe}\", \"{args}\"]", "validate = \"none\"");
    assert!(
        testbed
            .fleet
            .broadcast(&["--set", "message=four"])
            .expect(2)
            .stderr
            .contains("revive = [argv]")
    );
}

#[test]
fn a_successor_is_checked_again_under_its_own_identity() {
    let testbed = Testbed::new("hand-over", "[group.rollout]\nbake = \"20ms\"");
    let result = testbed.set("two", 0);
    let i = &result.json["instances"][0];
    assert!(
        i["successor_of"] == testbed.pids()[0],
        "{i:#}\n{}",
        result.stderr
    );
    assert!(i["outcome"] == "confirmed", "{i:#}\n{}", result.stderr);
    assert!(result.stderr.contains("Baked"), "{i:#}\n{}", result.stderr);
    // An instance that has ended by then is dead, even if its answer was proven.
    let testbed = Testbed::new("hand-over-soon", "[group.rollout]\nbake = \"2s\"");
    testbed.group("equals = \"{candidate.message}\"", "contains = \"\"");
    let result = testbed.set("two", 7);
    assert_eq!(
        result.json["instances"][0]["outcome"], "died",
        "{:#}",
        result.json
    );
}

#[test]
fn a_newcomer_that_reads_the_file_is_confirmed_or_the_run_is_mixed() {
    for (says, code) in [("", 0), ("--says old", 7)] {
        let testbed = Testbed::new("reload", "");
        // The validator runs between survey and install. The process that it requests waits for the
        // new file.
        let start = format!(
            "(cd /; while ! grep -q two '{config}'; do sleep 0.02; done; /usr/bin/python3 '{script}' --mode reload --config '{config}' --pids '{pids}' {says}; true)",
            config = testbed.fleet.path("web.toml").display(),
            script = testbed.fleet.path("daemon.py").display(),
            pids = testbed.fleet.path("pids").display(),
        );
        let (_outside, asks) = outside(&testbed.fleet, &start);
        let script = testbed.fleet.write("validator", &asks);
        let group = std::fs::read_to_string(testbed.fleet.path("fleet.toml")).unwrap();
        // The first is not proven before the newcomer is there.
        let group = group.replace(
            "reloads = true\n",
            &format!(
                "reloads = true\nvalidate = [\"/bin/sh\", \"{}\", \"{{candidate}}\"]\n",
                script.display()
            ),
        );
        let there = format!(
            "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"wc -l < '{}'\"]\nequals = \"2\"\n",
            testbed.fleet.path("pids").display()
        );
        testbed
            .fleet
            .write("fleet.toml", &format!("{group}\n{there}"));
        let result = testbed.set("two", code);
        let new = testbed.pids()[1];
        let all = result.json["instances"].as_array().unwrap();
        let i = all
            .iter()
            .find(|i| i["pid"] == new)
            .unwrap_or_else(|| panic!("{:#}", result.json));
        assert_eq!(
            (all.len(), i["outcome"].as_str().unwrap()),
            (2, if code == 0 { "confirmed" } else { "timed_out" }),
            "{i:#}"
        );
        assert_eq!(
            i["targets"][0],
            testbed.fleet.path("web.toml").display().to_string(),
            "{i:#}"
        );
    }
}

#[test]
fn a_foreign_listener_on_the_endpoint_prevents_the_proof() {
    let testbed = Testbed::new("leave", "");
    let result = testbed.set("two", 7);
    let i = &result.json["instances"][0];
    let foreign = testbed.pids()[1];
    assert_eq!(i["failure"]["kind"], "foreign_listener", "{i:#}");
    assert!(
        i["failure"]["text"]
            .as_str()
            .unwrap()
            .contains(&format!("pid {foreign} ")),
        "{i:#}"
    );
    assert!(testbed.fleet.text().contains("\"one\""), "rolled back");
    // While it is there, no run begins.
    let result = testbed.set("three", 5);
    assert!(
        result.stderr.contains(&format!("pid {foreign} ")),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("shares its address"),
        "{}",
        result.stderr
    );
    kill(Pid::from_raw(foreign), Signal::SIGKILL).unwrap();
    until("the foreign listener is gone", || {
        !std::path::Path::new(&format!("/proc/{foreign}")).exists()
    });
    let group = std::fs::read_to_string(testbed.fleet.path("fleet.toml")).unwrap();
    assert!(group.contains("timeout"));
    assert_eq!(get(&testbed.url, "/").1, "one");
}

#[test]
fn the_restart_command_is_shown_quoted_after_a_failed_revival() {
    let testbed = Testbed::new("die", "revive = [\"false\", \"{exe}\", \"{args}\"]");
    let result = testbed.set("two", 7);
    let line = to_type(&result);
    assert!(line.contains("&& false /"), "{}", result.stderr);
    assert!(
        line.contains("daemon.py --mode die --config /"),
        "{}",
        result.stderr
    );
}

#[test]
fn an_abandoned_worker_is_no_successor_and_gets_no_signal() {
    let testbed = Testbed::new("fork", "[[group.confirm]]\nworkers = true\nreplaced = true");
    let old = testbed.pids()[0];
    let result = testbed.set("two", 7);
    assert_eq!(
        (
            result.json["instances"][0]["pid"].as_i64(),
            result.json["instances"][0]["outcome"].as_str()
        ),
        (Some(old.into()), Some("died")),
        "{:#}",
        result.json
    );
    assert_eq!(
        std::fs::read_to_string(testbed.fleet.path("pids.hung")).unwrap(),
        format!("{old}\n")
    );
}

#[test]
fn without_leader_rules_the_process_that_inherited_is_the_successor() {
    let testbed = Testbed::new("hand-over", "pid_file = \"DIR/none\"");
    let result = testbed.set("two", 0);
    assert_eq!(
        result.json["instances"][0]["successor_of"],
        testbed.pids()[0],
        "{:#}",
        result.json
    );
}

#[test]
fn a_pid_file_that_others_can_write_names_no_successor() {
    if !crate::support::runs_as_root("only root ignores a pid file that other users can write") {
        return;
    }
    let testbed = Testbed::new("restart", "pid_file = \"DIR/pid\"");
    std::fs::set_permissions(
        testbed.fleet.path("pid"),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )
    .unwrap();
    let result = testbed.set("two", 7);
    assert!(
        result.json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .all(|i| i["successor_of"].is_null()),
        "{:#}",
        result.json
    );
}

#[test]
fn a_foreign_listener_on_the_probed_address_counts_despite_a_wildcard_socket() {
    let testbed = Testbed::with("keep", "", &["--host", "0.0.0.0"]);
    let port = testbed
        .url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap();
    // The kernel prefers the socket with the more specific address.
    let mut other = Command::new("/usr/bin/python3");
    let copy = testbed.fleet.write("other.py", DAEMON);
    other
        .arg(copy)
        .args([
            "--mode", "reload", "--says", "two", "--port", port, "--config",
        ])
        .arg(testbed.fleet.path("web.toml"));
    let mut other = other
        .arg("--pids")
        .arg(testbed.fleet.path("pids"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("it answers", || {
        testbed.pids().len() == 2 && get(&testbed.url, "/").1 == "two"
    });
    let result = testbed.set("two", 5);
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(
        result.stderr.contains(&format!("pid {} ", other.id())),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("shares its address"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_newcomer_gets_the_full_timeout_and_an_ended_one_is_ignored() {
    for (more, code) in [("--says old", 7), ("--says old --once yes", 0)] {
        let testbed = Testbed::new("reload", "");
        let start = format!(
            "(cd /; while ! grep -q two '{config}'; do sleep 0.02; done; exec /usr/bin/python3 '{script}' --mode keep --config '{config}' --pids '{pids}' {more})",
            config = testbed.fleet.path("web.toml").display(),
            script = testbed.fleet.path("daemon.py").display(),
            pids = testbed.fleet.path("pids").display(),
        );
        let (_outside, asks) = outside(&testbed.fleet, &start);
        let script = testbed.fleet.write("validator", &asks);
        testbed.group(
            "timeout = \"4s\"",
            &format!(
                "timeout = \"10m\"\nvalidate = [\"/bin/sh\", \"{}\", \"{{candidate}}\"]",
                script.display()
            ),
        );
        let group = std::fs::read_to_string(testbed.fleet.path("fleet.toml")).unwrap();
        let there = format!(
            "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"wc -l < '{}'\"]\nequals = \"2\"\n",
            testbed.fleet.path("pids").display()
        );
        testbed
            .fleet
            .write("fleet.toml", &format!("{group}\n{there}"));
        let result = testbed
            .fleet
            .broadcast(&["--set", "message=two", "--timeout", "8s"])
            .expect(code);
        assert_eq!(
            result.json["instances"].as_array().unwrap().len(),
            if code == 0 { 1 } else { 2 },
            "{:#}",
            result.json
        );
    }
}

#[test]
fn a_restarted_instance_is_rolled_back_by_its_own_attempt_counter() {
    let mut fleet = Fleet::start(2);
    for message in ["a", "b", "c"] {
        fleet
            .broadcast(&["--set", &format!("message={message}")])
            .expect(0);
    }
    let (first, second) = (fleet.pid(0), fleet.pid(1));
    fleet.write("pid", &format!("{first}\n"));
    // Both are stopped after the survey. The first is killed and restarted after the install; the
    // other proves nothing.
    let script = format!(
        "(cd /; kill -STOP {first} {second}; touch '{dir}/stopped'; while ! grep -q two '{config}'; do sleep 0.02; done; \
         kill -KILL {first}; sleep 0.2; '{exe}' serve --config '{config}' & echo $! > '{dir}/pid'; wait)",
        config = fleet.path("web.toml").display(),
        exe = fleet.exe().display(),
        dir = fleet.dir.path().display(),
    );
    let (_outside, asks) = outside(&fleet, &script);
    let asks = format!(
        "{asks}while [ ! -e /proc/$PPID/root'{}/stopped' ]; do sleep 0.02; done\n",
        fleet.dir.path().display()
    );
    let script = fleet.write("validator", &asks);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let more = format!(
        "pid_file = \"{}\"\nvalidate = [\"/bin/sh\", \"{}\"]\n",
        fleet.path("pid").display(),
        script.display()
    );
    fleet.write("fleet.toml", &format!("{text}{more}"));
    let result = fleet.broadcast(&["--set", "message=two"]);
    fleet.signal(1, Signal::SIGCONT);
    let new: i32 = std::fs::read_to_string(fleet.path("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kill(Pid::from_raw(new), Signal::SIGKILL).unwrap();
    fleet.kill(0);
    let result = result.expect(7);
    let i = result.json["instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["pid"] == new)
        .unwrap_or_else(|| panic!("{:#}", result.json));
    assert_eq!(
        (i["outcome"].as_str(), i["successor_of"].as_i64()),
        (Some("reverted"), Some(first.into())),
        "{i:#}"
    );
}

#[test]
fn an_instance_whose_successor_ends_is_dead_and_the_restart_command_is_shown() {
    let testbed = Testbed::new("hand-over-soon", "");
    let old = testbed.pids()[0];
    let result = testbed.set("two", 7);
    let i = &result.json["instances"][0];
    assert_eq!(
        (i["pid"].as_i64(), i["outcome"].as_str()),
        (Some(old.into()), Some("died")),
        "{i:#}"
    );
    assert!(
        to_type(&result).contains("daemon.py --mode hand-over-soon"),
        "{}",
        result.stderr
    );
}

#[test]
fn an_instance_that_reports_another_config_is_signalled_despite_the_record() {
    let testbed = Testbed::new("reload", "");
    let at = |name: &str| testbed.fleet.path(name);
    std::fs::rename(at("web.toml"), at("v1.toml")).unwrap();
    testbed.fleet.write("v2.toml", "message = \"two\"\n");
    let leads = |to: &str| {
        let _ = std::fs::remove_file(at("web.toml"));
        std::os::unix::fs::symlink(to, at("web.toml")).unwrap();
    };
    testbed.fleet.write("v1.toml", "message = \"uno\"\n");
    leads("v1.toml");
    assert_eq!(
        testbed.fleet.broadcast(&[]).expect(0).states(),
        ["confirmed"]
    );
    assert_eq!(
        testbed.fleet.broadcast(&[]).expect(0).states(),
        ["unchanged"]
    );
    // Edited by hand and restored: the file itself is as it was proven.
    leads("v2.toml");
    kill(Pid::from_raw(testbed.pids()[0]), Signal::SIGHUP).unwrap();
    until("it runs the other", || get(&testbed.url, "/").1 == "two");
    leads("v1.toml");
    assert_eq!(
        testbed.fleet.broadcast(&[]).expect(0).states(),
        ["confirmed"]
    );
    assert_eq!(get(&testbed.url, "/").1, "uno");
}

#[test]
fn an_instance_from_before_the_install_that_shows_the_new_content_has_read_it() {
    let testbed = Testbed::new("reload", "");
    // It starts before the install, and reads its config after it.
    let start = format!(
        "(cd /; exec /usr/bin/python3 '{}' --mode reload --waits two --config '{}' --pids '{}')",
        testbed.fleet.path("daemon.py").display(),
        testbed.fleet.path("web.toml").display(),
        testbed.fleet.path("pids").display(),
    );
    let (_outside, asks) = outside(&testbed.fleet, &start);
    let validator = testbed.fleet.write("validator", &asks);
    testbed.group(
        "reloads = true",
        &format!(
            "reloads = true\nvalidate = [\"/bin/sh\", \"{}\", \"{{candidate}}\"]",
            validator.display()
        ),
    );
    let group = std::fs::read_to_string(testbed.fleet.path("fleet.toml")).unwrap();
    let there = format!(
        "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"wc -l < '{}'\"]\nequals = \"2\"\n",
        testbed.fleet.path("pids").display()
    );
    testbed
        .fleet
        .write("fleet.toml", &format!("{group}\n{there}"));
    let result = testbed.set("two", 0);
    assert_eq!(
        (
            result.json["instances"].as_array().unwrap().len(),
            result.states()
        ),
        (2, vec!["confirmed", "confirmed"]),
        "{:#}",
        result.json
    );
}
