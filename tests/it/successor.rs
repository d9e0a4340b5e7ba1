//! New processes: who takes an instance's place, who came meanwhile, who is started again, and who listens there and belongs to nobody.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{Fleet, Said, get, until};

/// A server of the message in its config. What it does on the signal is its mode:
/// `reload` reads it again · `hand-over` starts its successor with its own socket and ends when that answers · `hand-over-old` the same, but that serves the old message ·
/// `restart` ends, and something else starts it again a moment later and writes the pid file · `die` ends ·
/// `leave` reads it again, and leaves, once, an old worker of another program that listens on its port as well.
const DAEMON: &str = r#"
import os, signal, socket, subprocess, sys, time
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
mode, config, pids = args["--mode"], args["--config"], args["--pids"]
message = lambda: open(config).read().split('"')[1]
hung = []
signal.signal(signal.SIGHUP, lambda *_: hung.append(1))
fd = args.get("--fd")
if fd: s = socket.socket(fileno=int(fd))
else:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for _ in range(500):
        try: s.bind(("127.0.0.1", int(args.get("--port", 0)))); break
        except OSError: time.sleep(0.02)
    s.listen(64)
body = args.get("--says") or message()
open(pids, "a").write("%d\n" % os.getpid())
print("http://127.0.0.1:%d/" % s.getsockname()[1], flush=True)
s.settimeout(0.02)
def again(*more, **how):
    base = [sys.executable, sys.argv[0], "--mode", "reload" if mode != "hand-over" else mode, "--config", config, "--pids", pids]
    return subprocess.Popen(base + list(more), **how)
while True:
    if hung:
        hung.clear()
        if mode == "die": sys.exit(3)
        if mode.startswith("hand-over"):
            more = ["--says", body] if mode == "hand-over-old" else []
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
    except OSError: pass
"#;

/// One daemon and all that it started, ended by pid.
struct Place {
    fleet: Fleet,
    child: Child,
    url: String,
}

impl Place {
    fn new(mode: &str, group: &str) -> Self {
        let fleet = Fleet::start(0);
        fleet.write("daemon.py", DAEMON);
        fleet.write("pid", "0\n");
        let mut command = Self::command(&fleet, mode);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        let stdout = child.stdout.take().unwrap();
        fleet.write("pid", &format!("{}\n", child.id()));
        let place = |url: String| Self { fleet, child, url };
        // Kept first, so that it is ended whatever it says.
        let mut place = place(String::new());
        BufReader::new(stdout).read_line(&mut url).unwrap();
        place.url = url.trim().to_owned();
        assert!(place.url.starts_with("http://"), "{url:?}");
        let (script, dir) = (place.fleet.path("daemon.py"), place.fleet.dir.path().display());
        let group = group.replace("DIR", &dir.to_string());
        place.fleet.write(
            "fleet.toml",
            &format!(
                "version = 1\n[[group]]\nname = \"d\"\nmatch = {{ script = \"{}\" }}\nconfig = \"{{arg:--config}}\"\nreloads = true\ntimeout = \"4s\"\nsamples = 1\n{group}\n\
                 [[group.confirm]]\nhttp = \"http://{{listen}}/\"\nequals = \"{{candidate.message}}\"\n",
                script.display()
            ),
        );
        place
    }

    fn command(fleet: &Fleet, mode: &str) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(fleet.path("daemon.py")).args(["--mode", mode, "--config"]).arg(fleet.path("web.toml"));
        command.arg("--pids").arg(fleet.path("pids")).arg("--pid-file").arg(fleet.path("pid")).stderr(Stdio::null());
        command
    }

    /// Every pid that the daemon or what it started has had.
    fn pids(&self) -> Vec<i32> {
        std::fs::read_to_string(self.fleet.path("pids")).unwrap_or_default().lines().map(|l| l.parse().unwrap()).collect()
    }

    fn set(&self, message: &str, code: i32) -> Said {
        self.fleet.broadcast(&["--set", &format!("message={message}")]).expect(code)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.pids() {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // Only what is still one of this test's own.
            if line.contains(&self.fleet.dir.path().display().to_string()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

#[test]
fn who_takes_an_instance_s_place_must_prove_the_new_config_and_does() {
    let place = Place::new("hand-over", "");
    let old = place.pids()[0];
    let said = place.set("two", 0);
    let i = &said.json["instances"][0];
    let new = *place.pids().last().unwrap();
    assert!(new != old && i["pid"] == new && i["successor_of"] == old && i["state"] == "confirmed", "{i:#}");
    assert!(said.stderr.contains(&format!("in the place of pid {old}")), "{}", said.stderr);
    assert_eq!(get(&place.url, "/").1, "two");
    // It is an instance like any other.
    place.set("three", 0);
    assert_eq!(get(&place.url, "/").1, "three");
}

#[test]
fn a_successor_that_serves_the_old_config_has_not_proven_the_new_one() {
    let place = Place::new("hand-over-old", "");
    let said = place.set("two", 6);
    let i = &said.json["instances"][0];
    assert!(i["successor_of"].is_i64() || i["pid"] != place.pids()[0], "{i:#}");
    assert_eq!((get(&place.url, "/").1.as_str(), place.fleet.text().contains("\"one\"")), ("one", true));
}

#[test]
fn who_is_started_again_under_the_pid_file_of_its_group_is_its_successor() {
    let place = Place::new("restart", "pid_file = \"DIR/pid\"");
    let said = place.set("two", 0);
    let i = &said.json["instances"][0];
    assert!(i["successor_of"] == place.pids()[0] && i["state"] == "confirmed", "{i:#}");
    assert_eq!(get(&place.url, "/").1, "two");
}

#[test]
fn without_a_successor_it_died_and_the_command_to_type_is_the_last_line() {
    let place = Place::new("die", "");
    let said = place.set("two", 7);
    assert_eq!((&said.json["instances"][0]["state"], place.fleet.text().contains("\"one\"")), (&"died".into(), true), "{:#}", said.json);
    let last = said.stderr.trim().lines().last().unwrap().trim();
    assert!(last.starts_with("cd ") && last.contains("daemon.py --mode die --config"), "{}", said.stderr);
}

#[test]
fn one_that_died_is_started_again_on_the_old_config() {
    let place = Place::new("die", "revive = [\"{exe}\", \"{args}\"]");
    let said = place.set("two", 6);
    let i = &said.json["instances"][0];
    assert!(i["state"] == "reverted" && i["successor_of"] == place.pids()[0], "{i:#}");
    assert_eq!(i["trouble"]["kind"], "died");
    // It outlives who started it, in a session of its own.
    let new = i["pid"].as_i64().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{new}/stat")).unwrap();
    assert_eq!(stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap(), new.to_string(), "{stat}");
    let bad = Place::new("die", "revive = [\"false\"]");
    let said = bad.set("two", 7);
    assert!(said.stderr.contains("`false` ended"), "{}", said.stderr);
}

#[test]
fn who_came_meanwhile_and_reads_the_file_is_confirmed_too_or_the_run_is_mixed() {
    for (says, code) in [("", 0), ("--says old", 7)] {
        let place = Place::new("reload", "");
        // A validator runs between the survey and the install: what it starts waits for the new file.
        let start = format!(
            "#!/bin/sh\n(cd /; while ! grep -q two '{config}'; do sleep 0.02; done; /usr/bin/python3 '{script}' --mode reload --config '{config}' --pids '{pids}' {says}; true) >/dev/null 2>&1 &\n",
            config = place.fleet.path("web.toml").display(),
            script = place.fleet.path("daemon.py").display(),
            pids = place.fleet.path("pids").display(),
        );
        let script = place.fleet.write("validator", &start);
        let group = std::fs::read_to_string(place.fleet.path("fleet.toml")).unwrap();
        // The first is not proven before the newcomer is there.
        let group = group.replace("reloads = true\n", &format!("reloads = true\nvalidate = [\"/bin/sh\", \"{}\", \"{{candidate}}\"]\n", script.display()));
        let there = format!("[[group.confirm]]\nexec = [\"sh\", \"-c\", \"wc -l < '{}'\"]\nequals = \"2\"\n", place.fleet.path("pids").display());
        place.fleet.write("fleet.toml", &format!("{group}\n{there}"));
        let said = place.set("two", code);
        let new = place.pids()[1];
        let all = said.json["instances"].as_array().unwrap();
        let i = all.iter().find(|i| i["pid"] == new).unwrap_or_else(|| panic!("{:#}", said.json));
        assert_eq!((all.len(), i["state"].as_str().unwrap()), (2, if code == 0 { "confirmed" } else { "timed_out" }), "{i:#}");
    }
}

#[test]
fn a_stranger_on_the_endpoint_keeps_the_new_config_from_being_proven() {
    let place = Place::new("leave", "");
    let said = place.set("two", 7);
    let i = &said.json["instances"][0];
    let stranger = place.pids()[1];
    assert_eq!(i["trouble"]["kind"], "stranger", "{i:#}");
    assert!(i["trouble"]["text"].as_str().unwrap().contains(&format!("pid {stranger} ")), "{i:#}");
    assert!(place.fleet.text().contains("\"one\""), "undone");
    // As long as it is there, nothing is begun.
    let said = place.set("three", 5);
    assert!(said.stderr.contains(&format!("pid {stranger} ")) && said.stderr.contains("shares its address"), "{}", said.stderr);
    kill(Pid::from_raw(stranger), Signal::SIGKILL).unwrap();
    until("the stranger is gone", || !std::path::Path::new(&format!("/proc/{stranger}")).exists());
    let group = std::fs::read_to_string(place.fleet.path("fleet.toml")).unwrap();
    assert!(group.contains("timeout"));
    assert_eq!(get(&place.url, "/").1, "one");
}
