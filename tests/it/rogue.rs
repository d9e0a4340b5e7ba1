//! Programs that do not reload as `hello serve` does: copies of the test binary, run again.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::SignalFd,
};
use sha2::{Digest, Sha256};

use crate::support::{Fleet, Killed, get, install_program, until};

/// The pause of a slow rogue: longer than the wait for an immediate answer.
const PAUSES: Duration = Duration::from_millis(1500);
/// The time from the signal to the new message of a late rogue.
const LOADS: Duration = Duration::from_millis(3500);

/// Runs the rogue. `ROGUE` holds its mode, `ROGUE_CONFIG` the path of its config.
#[test]
#[ignore = "not a test: the rogue that the others start"]
fn run() {
    let (Ok(mode), Ok(config)) = (std::env::var("ROGUE"), std::env::var("ROGUE_CONFIG")) else {
        return;
    };
    let message = move || {
        std::fs::read_to_string(&config)
            .unwrap()
            .split('"')
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    let file = PathBuf::from(std::env::var("ROGUE_CONFIG").unwrap());
    let old = message();
    let (hung, signals) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let hup = signal_hook::consts::SIGHUP;
    let blocked = SigSet::from(Signal::SIGHUP);
    match mode.as_str() {
        "default" => {}
        "ignore" => {
            // Inherited from the shell that started it.
        }
        "block" => {
            // Blocked in every thread, as a parent may leave it.
            signal_hook::flag::register(hup, hung.clone()).unwrap();
        }
        "exit" => drop(
            signal_hook::flag::register_conditional_shutdown(
                hup,
                3,
                Arc::new(AtomicBool::new(true)),
            )
            .unwrap(),
        ),
        "sigwait" | "signalfd" => {
            let (hung, waits) = (hung.clone(), mode == "sigwait");
            let fd = (!waits).then(|| SignalFd::new(&blocked).unwrap());
            thread::spawn(move || {
                loop {
                    match &fd {
                        Some(fd) => {
                            let mut poll = [nix::poll::PollFd::new(
                                fd.as_fd(),
                                nix::poll::PollFlags::POLLIN,
                            )];
                            nix::poll::poll(&mut poll, nix::poll::PollTimeout::NONE).unwrap();
                            fd.read_signal().unwrap();
                        }
                        None => drop(blocked.wait().unwrap()),
                    }
                    hung.store(true, Ordering::SeqCst);
                }
            });
        }
        _ => drop(signal_hook::flag::register(hup, hung.clone()).unwrap()),
    }
    let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // No process answers there.
    let _second = (mode == "two").then(|| TcpListener::bind("127.0.0.1:0").unwrap());
    println!("\nhttp://{}/", listener.local_addr().unwrap());
    if mode == "closed" {
        drop(listener);
        while !hung.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        listener = TcpListener::bind("127.0.0.1:0").unwrap();
    }
    // A rogue that accepts these and never answers becomes healthy after a signal.
    let mut held = Vec::new();
    let mute = ["mute", "dumb", "past", "past-io"].contains(&mode.as_str());
    let me = procfs::process::Process::myself().unwrap();
    let started = me.stat().unwrap().starttime;
    let mut body = old.clone();
    let digest = |path: &Path| -> String {
        Sha256::digest(std::fs::read(path).unwrap())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    };
    let (first, speaks) = (
        digest(&file),
        matches!(
            mode.as_str(),
            "liar" | "stale" | "past" | "past-io" | "picky"
        ),
    );
    // The content that a picky rogue serves, the content it read last, and its report about that.
    let (mut loaded, mut looked, mut result) = (first.clone(), first.clone(), "applied");
    let mut loading: Option<(Instant, String)> = None;
    let mut paused = String::new();
    let mut given = 0;
    for stream in listener.incoming() {
        if let Some((_, new)) = loading.take_if(|(at, _)| at.elapsed() > LOADS) {
            body = new;
        }
        let asked = hung.swap(false, Ordering::SeqCst);
        if mode == "pauses" && !asked && ![&body, &paused].contains(&&message()) {
            // Once, when the file has changed and no signal has come yet.
            paused = message();
            thread::sleep(PAUSES);
        }
        if asked && mode == "late" {
            // A request during the load is dropped.
            loading.get_or_insert_with(|| (Instant::now(), message()));
        } else if asked && mode == "picky" {
            signals.fetch_add(1, Ordering::SeqCst);
            let (new, sha256) = (message(), digest(&file));
            result = if new.contains("refuse") {
                "rejected"
            } else {
                "applied"
            };
            if result == "applied" {
                (body, loaded) = (new, sha256.clone());
            }
            looked = sha256;
        } else if asked {
            signals.fetch_add(1, Ordering::SeqCst);
            body = if matches!(mode.as_str(), "old" | "liar" | "dumb") {
                old.clone()
            } else {
                message()
            };
        }
        let Ok(mut stream) = stream else { continue };
        if mute && signals.load(Ordering::SeqCst) == 0 {
            held.push(stream);
            continue;
        }
        // Reads the request to its end: unread bytes would reset the connection.
        let (mut request, mut piece) = (String::new(), [0; 1024]);
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            request += &String::from_utf8_lossy(&piece[..length]);
            if request.ends_with("\r\n\r\n") {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let count = signals.load(Ordering::SeqCst);
        // A liar reports the digest on the disk and keeps serving the old message. A stale rogue
        // does the opposite.
        let sha256 = digest(&file);
        let serves = match mode.as_str() {
            "stale" => &first,
            "picky" => &loaded,
            _ => &sha256,
        };
        // An attempt long before the run, successful or failed.
        let (result, read) = match mode.as_str() {
            "past-io" => ("io_error", None),
            "picky" => (result, Some(&looked)),
            _ => ("applied", Some(&sha256)),
        };
        let answer = match path.as_str() {
            "/signals" => count.to_string(),
            "/-/config" if speaks => serde_json::json!({
                "v": 1, "instance": { "pid": me.pid, "started": started, "exe": me.exe().unwrap(), "version": "0" },
                "effective": { "sha256": serves, "generation": 1 + count, "loaded_at": "2026-01-01T00:00:00Z", "path": file },
                "last_attempt": { "seq": 1 + count, "sha256": read, "result": result, "error": null, "at": "2026-01-01T00:00:00Z", "took_us": 1 },
                "restart_required": [], "restart_only": {}
            })
            .to_string(),
            // The fields that one proof needs, and no more.
            _ if mode == "forgets" && body != old => {
                given += 1;
                if given == 3 { std::mem::replace(&mut body, old.clone()) } else { body.clone() }
            }
            _ => body.clone(),
        };
        let proof = if speaks {
            format!(
                "X-Config-Sha256: {serves}\r\nX-Instance: {}:{started}\r\n",
                me.pid
            )
        } else {
            String::new()
        };
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{proof}Connection: close\r\n\r\n{answer}",
            answer.len()
        );
    }
}

/// A rogue that runs, killed by its pid.
pub(crate) struct Rogue {
    child: Child,
    pub(crate) url: String,
}

impl Rogue {
    pub(crate) fn start(exe: &Path, mode: &str, config: &Path) -> Self {
        // A child of the shell inherits the ignored signal, and exec keeps the pid.
        let ignore = if mode == "ignore" {
            "trap '' HUP; "
        } else {
            ""
        };
        let script = format!(
            "{ignore}exec \"$0\" --exact rogue::run --ignored --nocapture --test-threads=1"
        );
        // A child inherits what its parent's thread blocks.
        let blocked = SigSet::from(Signal::SIGHUP);
        if matches!(mode, "block" | "sigwait" | "signalfd") {
            blocked.thread_block().unwrap();
        }
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(exe)
            .envs([("ROGUE", mode), ("ROGUE_CONFIG", config.to_str().unwrap())])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        blocked.thread_unblock().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let url = stdout
            .lines()
            .map(Result::unwrap)
            .find(|l| l.starts_with("http://"))
            .expect("it says where it listens");
        Self { child, url }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signals(&self) -> String {
        get(&self.url, "/signals").1
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `n` rogues of one mode under `name`, and writes a group that finds them.
pub(crate) fn rogues(fleet: &Fleet, name: &str, mode: &str, n: usize, group: &str) -> Vec<Rogue> {
    mixed(fleet, name, &vec![mode; n], group)
}

/// Starts a rogue of each mode under `name`, and writes a group that finds them.
pub(crate) fn mixed(fleet: &Fleet, name: &str, modes: &[&str], group: &str) -> Vec<Rogue> {
    let exe = fleet.path(name);
    install_program(&std::env::current_exe().unwrap(), &exe);
    fleet.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"rogue\"\nmatch = {{ exe = \"{}\" }}\nconfig = \"{}\"\ntimeout = \"800ms\"\n{group}\n",
            exe.display(),
            fleet.path("web.toml").display()
        ),
    );
    modes
        .iter()
        .map(|mode| Rogue::start(&exe, mode, &fleet.path("web.toml")))
        .collect()
}

pub(crate) const SEEN: &str =
    "[[group.confirm]]\nhttp = \"http://{listen}/\"\nequals = \"{candidate.message}\"";

#[test]
fn a_process_that_does_not_take_the_signal_is_refused_by_name_and_survives() {
    let refused = |mode: &str, says: &str| {
        let fleet = Fleet::start(0);
        let before = fleet.text();
        // A pending signal is lost only if the process executes itself.
        let mut all = rogues(
            &fleet,
            mode,
            mode,
            1,
            &format!("reloads = true\nexecutes_itself = true\n{SEEN}"),
        );
        let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
        assert!(result.stderr.contains(says), "{mode}: {}", result.stderr);
        assert!(
            result
                .stderr
                .contains(&format!("pid {}", all[0].child.id())),
            "{mode}: {}",
            result.stderr
        );
        assert_eq!(result.states(), ["refused"]);
        assert!(all[0].runs(), "{mode}");
        assert!(fleet.text() == before, "{mode}");
        assert_eq!(all[0].signals(), "0", "{mode}");
    };
    // A process that blocks the signal is waited for, so the cases run concurrently.
    std::thread::scope(|scope| {
        for (mode, says) in [
            ("default", "no handler"),
            ("ignore", "ignores SIGHUP"),
            ("block", "blocks SIGHUP"),
        ] {
            scope.spawn(move || refused(mode, says));
        }
    });
}

#[test]
fn a_handler_alone_is_no_proof_that_a_program_reloads() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let mut all = rogues(&fleet, "catches", "exit", 2, SEEN);
    let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert!(
        result.stderr.contains("reloads = true"),
        "{}",
        result.stderr
    );
    // With the kind `hello` it must have the interface of `hello serve`.
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &text.replace("name = \"rogue\"\n", "name = \"rogue\"\nkind = \"hello\"\n"),
    );
    fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert!(all.iter_mut().all(Rogue::runs));
    assert!(fleet.text() == before);
    // If the group declares that it reloads, one is tried alone and dies. The others are never
    // signalled.
    fleet.write(
        "fleet.toml",
        &text.replace("name = \"rogue\"\n", "name = \"rogue\"\nreloads = true\n"),
    );
    let result = fleet.broadcast(&["--set", "message=x"]).expect(7);
    assert_eq!(result.states(), ["died", "untouched"]);
    assert_eq!(
        (
            all.iter_mut()
                .filter_map(|r| r.runs().then_some(()))
                .count(),
            fleet.text()
        ),
        (1, before)
    );
}

#[test]
fn an_instance_that_keeps_the_old_message_is_rolled_back() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let mut all = rogues(&fleet, "old", "old", 3, &format!("reloads = true\n{SEEN}"));
    let result = fleet.broadcast(&["--set", "message=x"]).expect(7);
    assert_eq!(result.states(), ["revert_failed", "untouched", "untouched"]);
    assert!(
        result
            .stderr
            .contains("nothing shows that its reload of the new one is over"),
        "{}",
        result.stderr
    );
    assert!(all.iter_mut().all(Rogue::runs));
    assert!(fleet.text() == before);
    assert_eq!(
        all.iter().filter(|r| r.signals() != "0").count(),
        1,
        "one alone was tried"
    );
}

#[test]
fn a_late_answer_between_install_and_signal_is_proven_by_the_rollback() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let group = "reloads = true\nsamples = 1\n[[group.confirm]]\nhttp = \"http://{listen}/signals\"\nincreased = true\n[rollout]\ngate = [\"false\"]";
    let all = rogues(&fleet, "pauses", "pauses", 1, group);
    let result = fleet
        .broadcast(&["--set", "message=x", "--timeout", "10s"])
        .expect(6);
    assert_eq!(
        (result.states(), fleet.text(), all[0].signals()),
        (vec!["reverted"], before, "2".to_owned())
    );
}

#[test]
fn a_false_digest_is_not_believed() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let all = rogues(&fleet, "liar", "liar", 1, "kind = \"hello\"\nvalidate = []");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(6);
    assert_eq!(
        (result.states(), fleet.text(), all[0].signals()),
        (vec!["reverted"], before, "2".to_owned())
    );
}

#[test]
fn the_message_of_another_config_is_no_proof() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let all = rogues(
        &fleet,
        "stale",
        "stale",
        1,
        "kind = \"hello\"\nvalidate = []",
    );
    let result = fleet.broadcast(&["--set", "message=x"]).expect(6);
    assert_eq!(
        result.json["instances"][0]["failure"]["kind"], "timed_out",
        "{:#}",
        result.json
    );
    assert_eq!(
        (result.states(), fleet.text(), all[0].signals()),
        (vec!["reverted"], before, "2".to_owned())
    );
}

#[test]
fn a_signalfd_is_a_handler_and_so_is_sigwait() {
    for (mode, reloads) in [
        ("signalfd", "true"),
        ("sigwait", "true"),
        ("sigwait", "\"unchecked\""),
    ] {
        let fleet = Fleet::start(0);
        let all = rogues(
            &fleet,
            mode,
            mode,
            2,
            &format!("reloads = {reloads}\n{SEEN}"),
        );
        fleet.broadcast(&["--set", "message=x"]).expect(0);
        assert!(all.iter().all(|r| get(&r.url, "/").1 == "x"), "{mode}");
    }
}

#[test]
fn a_listed_thread_is_no_process() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let all = rogues(&fleet, "threads", "sigwait", 1, "reloads = \"unchecked\"");
    let pid = i32::try_from(all[0].child.id()).unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|t| {
            t.unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse::<i32>()
                .unwrap()
        });
    let thread = tasks.into_iter().find(|t| *t != pid).unwrap();
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{text}instances = [ {{ pid = {thread} }} ]\n{SEEN}\n"),
    );
    fleet.broadcast(&["--set", "message=x"]).expect(3);
    assert_eq!((fleet.text(), all[0].signals()), (before, "0".to_owned()));
}

#[test]
fn names_of_any_length_and_with_any_sign_are_found() {
    for name in ["a-name-of-many-more-than-sixteen-signs", "a b) c (d"] {
        let fleet = Fleet::start(0);
        let all = rogues(
            &fleet,
            name,
            "good",
            2,
            &format!("count = 2\nreloads = true\n{SEEN}"),
        );
        fleet.broadcast(&["--set", "message=x"]).expect(0);
        assert!(all.iter().all(|r| get(&r.url, "/").1 == "x"));
    }
}

#[test]
fn an_unobservable_instance_is_unconfirmed_and_its_own_report_ends_the_wait() {
    let fleet = Fleet::start(0);
    let all = rogues(&fleet, "unseen", "good", 1, "reloads = true\nconfirm = []");
    let result = fleet.broadcast(&["--set", "message=x"]).expect(12);
    assert_eq!(result.states(), ["unconfirmed"]);
    until("it reloaded", || get(&all[0].url, "/").1 == "x");
    drop(all);
    let reject = "[[group.reject]]\nhttp = \"http://{listen}/signals\"\nincreased = true";
    let all = rogues(
        &fleet,
        "rejects",
        "old",
        1,
        &format!("reloads = true\n{SEEN}\n{reject}"),
    );
    let result = fleet.broadcast(&["--set", "message=y"]).expect(6);
    assert_eq!(
        result.json["instances"][0]["failure"]["kind"], "rejected",
        "{:#}",
        result.json
    );
    // Adopted without a record of a proof, there is no rollback content. The failure is reported
    // with the bad file.
    std::fs::remove_dir_all(fleet.path("state")).unwrap();
    // The content that it already serves would be proven before it has taken the signal.
    fleet.write("web.toml", &fleet.text().replace("\"x\"", "\"z\""));
    let result = fleet.broadcast(&[]).expect(7);
    assert_eq!(result.states(), ["rejected"]);
    assert!(result.stderr.contains("web.toml"), "{}", result.stderr);
    assert!(all[0].signals() == "3", "{}", result.stderr);
}

#[test]
fn a_go_program_without_notify_is_refused() {
    if Command::new("go")
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_err()
    {
        crate::support::skipped("Go is not installed");
        return;
    }
    let fleet = Fleet::start(0);
    let source = fleet.write(
        "main.go",
        "package main\nimport (\"fmt\"; \"net\"; \"net/http\")\nfunc main() { l, _ := net.Listen(\"tcp\", \"127.0.0.1:0\"); fmt.Printf(\"http://%s/\\n\", l.Addr()); http.Serve(l, nil) }\n",
    );
    let exe = fleet.path("go-server");
    assert!(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&exe)
            .arg(&source)
            .env("HOME", fleet.dir.path())
            .status()
            .unwrap()
            .success()
    );
    let mut child = Command::new(&exe).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let mut go = Rogue { child, url };
    fleet.write(
        "fleet.toml",
        &format!("version = 1\n[[group]]\nname = \"go\"\nmatch = {{ exe = \"go-server\" }}\nconfig = \"{}\"\n{SEEN}\n", fleet.path("web.toml").display()),
    );
    fleet.broadcast(&["--set", "message=x"]).expect(5);
    assert!(go.runs());
}

#[test]
fn a_process_whose_program_was_upgraded_is_the_same_process() {
    let mut fleet = Fleet::start(1);
    let exe = fleet.exe().display().to_string();
    let script = fleet.write(
        "validator",
        &format!(
            "R=/proc/$PPID/root; cp '{exe}' \"$R{exe}.new\" && mv \"$R{exe}.new\" \"$R{exe}\"\n"
        ),
    );
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{text}validate = [\"/bin/sh\", \"{}\"]\n", script.display()),
    );
    let result = fleet.broadcast(&["--set", "message=x"]).expect(0);
    assert_eq!(
        (result.states(), fleet.bodies()),
        (vec!["confirmed"], vec!["x".to_owned()])
    );
    // It keeps running; only the program of the next start differs.
    fleet.kill(0);
}

#[test]
fn an_interrupt_ends_the_survey_and_the_restart_key_check() {
    for group in [
        "confirm = []\nrestart_keys = [\"sh\", \"-c\", \"WAIT\"]",
        "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"WAIT\"]\nequals = \"x\"",
    ] {
        let fleet = Fleet::start(0);
        let asked = fleet.path("asked");
        let group = group.replace(
            "WAIT",
            &format!("touch '{}'; exec sleep 60", asked.display()),
        );
        let mut all = rogues(
            &fleet,
            "halted",
            "good",
            1,
            &format!("reloads = true\n{group}"),
        );
        let child = fleet
            .command(&["--set", "message=x"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = Killed(child.unwrap());
        until("it is asked", || asked.exists());
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(child.0.id()).unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        // Before the command's own limit, which would refuse it.
        assert_eq!(child.0.wait().unwrap().code(), Some(1), "{group}");
        assert!(all[0].runs());
        assert!(all[0].signals() == "0");
        assert!(fleet.text().contains("\"one\""));
    }
}

#[test]
fn a_restart_key_that_was_edited_in_place_still_needs_a_restart() {
    let fleet = Fleet::start(0);
    let all = rogues(
        &fleet,
        "keys",
        "good",
        1,
        &format!("reloads = true\n{SEEN}"),
    );
    fleet.broadcast(&["--set", "message=a"]).expect(0);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let keys = "reloads = true\nrestart_keys = [\"echo\", \"message\"]\nrestart_value = [\"grep\", \"{key}\", \"{candidate}\"]";
    fleet.write("fleet.toml", &text.replace("reloads = true", keys));
    fleet.broadcast(&["--set", "message=b"]).expect(10);
    fleet.write("web.toml", &fleet.text().replace("\"a\"", "\"b\""));
    let result = fleet.broadcast(&[]).expect(10);
    assert!(result.stderr.contains("`message`"), "{}", result.stderr);
    assert!(all[0].signals() == "1", "{}", result.stderr);
}

#[test]
fn serving_the_old_config_is_no_proof_while_the_new_one_may_still_load() {
    let fleet = Fleet::start(0);
    let all = rogues(
        &fleet,
        "late",
        "late",
        1,
        &format!("reloads = true\n{SEEN}"),
    );
    let result = fleet
        .broadcast(&["--set", "message=x", "--timeout", "2s"])
        .expect(7);
    assert_eq!(result.states(), ["revert_failed"]);
    assert_eq!(
        get(&all[0].url, "/").1,
        "x",
        "it serves the new one, as the verdict says"
    );
}
