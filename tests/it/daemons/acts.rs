//! The acts for every server: `hello broadcast` with the shipped kind, observed from outside.

use std::{
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{Daemon, folder, listening, started, stop, web::Web, words};
use crate::support::{CommandResult, until, write};

/// The words of the configs. Their lengths differ, so that no two configs have the same size.
const WORDS: [&str; 4] = ["one", "three", "seventeen", "four"];
/// The pause between two requests of a client. Short enough to meet every reload.
const PAUSE: Duration = Duration::from_millis(1);
/// A validator that passes and stops the master.
const STOPS: &str = r#"validate = ["sh", "-c", "kill -STOP {pid}; until grep -q '^State:.T' /proc/{pid}/status; do :; done", "{candidate}"]"#;

/// The state that no run may change.
#[derive(Debug, PartialEq)]
pub(super) struct Stand {
    pub(super) text: String,
    inode: u64,
    pub(super) children: Vec<(i32, Option<u64>)>,
    sighups: usize,
}

impl Web {
    /// Writes a fleet of this daemon with its kind. `more` is added to its group.
    pub(crate) fn fleet(&self, more: &str) {
        let (kind, matching) = (self.sort.kind, self.matching());
        self.daemon.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"web\"\nkind = \"{kind}\"\nmatch = {matching}\n{more}\n"));
    }

    pub(super) fn matching(&self) -> String {
        (self.sort.matching)(self.daemon.dir.path(), self.port)
    }

    /// Broadcasts a config.
    pub(super) fn broadcast_config(&self, text: &str) -> CommandResult {
        self.daemon
            .broadcast(&["--config", self.written(text).to_str().unwrap()])
    }

    /// Does the same as [`Web::put`], and calls back with each event.
    pub(super) fn watch(&self, text: &str, on_event: impl FnMut(&Value)) -> CommandResult {
        self.daemon.watch(
            &["--config", self.written(text).to_str().unwrap()],
            on_event,
        )
    }

    fn written(&self, text: &str) -> PathBuf {
        self.is_settled();
        self.daemon.write("new", text)
    }

    /// Waits until it is as after its start: it has its title, takes the signal, and old workers
    /// are gone.
    pub(super) fn is_settled(&self) {
        let has = |pid: i32, word: &str| words(pid).iter().any(|one| one.contains(word));
        let title = || match self.sort.kind {
            "sshd" => has(self.daemon.pid(), "[listener]"),
            // Until then it looks like a second master.
            "nginx" => {
                let workers = self.daemon.children();
                workers.into_iter().all(|worker| has(worker, "worker"))
            }
            _ => true,
        };
        until("it has settled", || {
            self.takes_sighup() && title() && self.daemon.children().len() == self.sort.workers
        });
    }

    /// Returns how often it has logged the signal.
    pub(crate) fn sighups(&self) -> usize {
        let (log, words) = self.sort.tells;
        std::fs::read_to_string(self.daemon.path(log))
            .unwrap()
            .matches(words)
            .count()
    }

    /// Whether a worker has ever got the signal.
    pub(super) fn was_a_worker_struck(&self) -> bool {
        let log = std::fs::read_to_string(self.daemon.path(self.sort.tells.0)).unwrap();
        self.sort.struck.is_some_and(|words| log.contains(words))
    }

    pub(super) fn stand(&self) -> Stand {
        Stand {
            text: std::fs::read_to_string(self.file()).unwrap(),
            inode: self.file().metadata().unwrap().ino(),
            children: self
                .daemon
                .children()
                .into_iter()
                .map(|pid| (pid, started(pid)))
                .collect(),
            sighups: self.sighups(),
        }
    }
}

/// Returns the only instance of a run.
pub(super) fn only_instance(result: &CommandResult) -> &Value {
    let all = result.json["instances"].as_array().unwrap();
    assert_eq!(all.len(), 1, "{:#}", result.json);
    &all[0]
}

/// Four clients that ask for the word over fresh connections. Stopped when dropped.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    pub(super) fn on(port: u16, ask: fn(u16) -> Option<String>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = || {
            let over = over.clone();
            std::thread::spawn(move || {
                let (mut answered, mut dropped) = (0, Vec::new());
                while !over.load(Ordering::Relaxed) {
                    match ask(port) {
                        Some(word) if WORDS.contains(&word.as_str()) => answered += 1,
                        other => dropped.push(format!("{other:?}")),
                    }
                    // Other tests want the machine too.
                    std::thread::sleep(PAUSE);
                }
                (answered, dropped)
            })
        };
        Self {
            clients: (0..4).map(|_| client()).collect(),
            over,
        }
    }

    /// Returns the number of answered requests, and the failures of the others.
    pub(super) fn end(mut self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        let ends: Vec<(usize, Vec<String>)> = self
            .clients
            .drain(..)
            .map(|client| client.join().unwrap())
            .collect();
        (
            ends.iter().map(|(n, _)| n).sum(),
            ends.into_iter().flat_map(|(_, dropped)| dropped).collect(),
        )
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Makes good changes one after another. An instance on the new config gets no second signal. With
/// `load`, no request is dropped.
pub(super) fn converges(web: &Web, load: bool) {
    web.fleet("");
    let load = load.then(|| Load::on(web.port, web.sort.ask));
    for word in &WORDS[1..] {
        let old = web.daemon.children();
        let result = web.broadcast_config(&web.config(word)).expect(0);
        let one = only_instance(&result);
        assert_eq!(
            (&one["outcome"], &one["proof"], &one["pid"]),
            (
                &"confirmed".into(),
                &"workers".into(),
                &web.daemon.pid().into()
            )
        );
        assert!((0..16).all(|_| web.word().as_deref() == Some(word)));
        assert!(old.iter().all(|pid| listening(*pid).is_empty()));
    }
    web.is_settled();
    let stand = web.stand();
    assert_eq!(
        (stand.sighups, web.was_a_worker_struck()),
        (WORDS.len() - 1, false),
        "{} only the master was signalled, once for each change",
        web.daemon.log()
    );
    assert_eq!(
        web.broadcast_config(&stand.text).expect(0).states(),
        ["unchanged"]
    );
    assert_eq!(web.daemon.broadcast(&[]).expect(0).states(), ["unchanged"]);
    assert_eq!(web.stand(), stand);
    if let Some((answered, dropped)) = load.map(Load::end) {
        assert!(dropped.is_empty(), "{answered} answered; {dropped:?}");
        assert!(answered > 100, "{answered} answered; {dropped:?}");
    }
}

/// Checks that a rejection by its validator is exit 4 and touches nothing.
pub(super) fn refuses(web: &Web, text: &str, says: &str) {
    let word = web.word();
    web.is_settled();
    let stand = web.stand();
    let result = web.broadcast_config(text).expect(4);
    assert!(result.stderr.contains(says), "{}", result.stderr);
    assert_eq!((web.stand(), web.word()), (stand, word));
}

/// Uses the text that `hello kinds NAME` prints as the group, with another `match`.
pub(super) fn copied(web: &Web) {
    let result = Command::new(env!("CARGO_BIN_EXE_hello"))
        .args(["kinds", web.sort.kind])
        .output()
        .unwrap();
    let text = String::from_utf8(result.stdout).unwrap();
    let at = text
        .lines()
        .position(|line| line.starts_with("match = "))
        .unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[at] = format!("match = {}", web.matching());
    assert!(!text.contains("\nkind = "), "{text}");
    web.daemon.write(
        "fleet.toml",
        &format!("version = 1\n{}\n", lines.join("\n")),
    );
    assert_eq!(
        web.broadcast_config(&web.config("twelve"))
            .expect(0)
            .states(),
        ["confirmed"]
    );
    assert_eq!(web.word().as_deref(), Some("twelve"));
}

/// Checks that an instance stopped before the survey is refused.
pub(super) fn stopped_before(web: &Web) {
    web.fleet("");
    let new = web.written(&web.config("two"));
    let stand = web.stand();
    web.daemon.stop();
    let result = web
        .daemon
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(5);
    assert!(
        result
            .stderr
            .contains(&format!("pid {} is stopped", web.daemon.pid())),
        "{}",
        result.stderr
    );
    assert_eq!(web.stand(), stand);
    web.daemon.signal(Signal::SIGCONT);
    assert_eq!(
        (result.states(), web.word().as_deref()),
        (vec!["refused"], Some("one"))
    );
    web.is_settled();
    assert_eq!(web.stand(), stand);
}

/// Checks that an instance stopped after the survey proves neither config. Continued, it reloads
/// the old one.
pub(super) fn stopped_after(web: &Web) {
    web.fleet(&format!("timeout = \"400ms\"\n{STOPS}"));
    let stand = web.stand();
    let result = web.broadcast_config(&web.config("two")).expect(7);
    let one = only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["failure"]["kind"], &one["pid"]),
        (
            &"revert_failed".into(),
            &"timed_out".into(),
            &web.daemon.pid().into()
        )
    );
    assert!(
        result.stderr.contains(&format!(
            "pid {} is not proven on the old config",
            web.daemon.pid()
        )),
        "{}",
        result.stderr
    );
    assert_eq!(
        (std::fs::read_to_string(web.file()).unwrap(), web.sighups()),
        (stand.text, stand.sighups)
    );
    web.daemon.signal(Signal::SIGCONT);
    until("it has taken the signal", || web.sighups() > stand.sighups);
    web.is_settled();
    until("it says the old word", || {
        web.word().as_deref() == Some("one")
    });
}

/// Checks that an instance stopped until the rollback is proven on the old config.
pub(super) fn stopped_until_the_undo(web: &Web) {
    stopped_until_the_undo_within(web, "2s");
}

/// Does the same with this `timeout`, in which its reload ends twice.
pub(super) fn stopped_until_the_undo_within(web: &Web, timeout: &str) {
    web.fleet(&format!("timeout = {timeout:?}\n{STOPS}"));
    let stand = web.stand();
    let result = web.watch(&web.config("two"), |event| {
        if event["event"] == "rollback_began" {
            web.daemon.signal(Signal::SIGCONT);
        }
    });
    let result = result.expect(6);
    let one = only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["failure"]["kind"], &one["pid"]),
        (
            &"reverted".into(),
            &"timed_out".into(),
            &web.daemon.pid().into()
        )
    );
    // sshd re-executes itself for each of the two signals, and nothing listens in between.
    let result: Vec<_> = (0..16).map(|_| web.word()).collect();
    assert!(
        result.iter().flatten().all(|word| word == "one"),
        "{result:?}"
    );
    assert!(
        web.sort.workers == 0 || !result.contains(&None),
        "{result:?}"
    );
    assert_eq!(std::fs::read_to_string(web.file()).unwrap(), stand.text);
    until("it says the old word", || {
        web.word().as_deref() == Some("one")
    });
    web.is_settled();
    assert!(web.sighups() > stand.sighups);
    let now = web.daemon.children();
    assert!(
        !stand.children.iter().any(|(pid, _)| now.contains(pid)),
        "{now:?}"
    );
}

/// Checks that an instance killed after the install is named, and that the old config is rolled
/// back.
pub(super) fn killed(web: &Web) {
    web.fleet(&format!("timeout = \"20s\"\n{STOPS}"));
    let text = std::fs::read_to_string(web.file()).unwrap();
    let mut killed = false;
    let result = web.watch(&web.config("two"), |event| {
        if event["event"] == "installed" && !std::mem::replace(&mut killed, true) {
            web.daemon.signal(Signal::SIGKILL);
        }
    });
    let result = result.expect(7);
    let one = only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["failure"]["kind"], &one["pid"]),
        (&"died".into(), &"died".into(), &web.daemon.pid().into())
    );
    assert!(
        result
            .stderr
            .contains(&format!("pid {} died", web.daemon.pid())),
        "{}",
        result.stderr
    );
    assert_eq!(std::fs::read_to_string(web.file()).unwrap(), text);
}

/// Checks that an old worker with an open connection is named and does not block the proof.
pub(super) fn drains(web: &Web) {
    web.fleet("");
    let old = web.daemon.children();
    let open = web.open();
    let result = web.broadcast_config(&web.config("three")).expect(0);
    let named = only_instance(&result)["draining"].clone();
    until("only the busy one is left", || {
        old.iter().filter(|pid| started(**pid).is_some()).count() == 1
    });
    let busy = *old.iter().find(|pid| started(**pid).is_some()).unwrap();
    assert_eq!(
        (only_instance(&result)["outcome"].as_str(), named),
        (Some("confirmed"), serde_json::json!([busy]))
    );
    assert!(
        result.stderr.contains(&format!("draining: pid {busy}")),
        "{}",
        result.stderr
    );
    assert!((0..16).all(|_| web.word().as_deref() == Some("three")));
    drop(open);
    until("it is gone", || started(busy).is_none());
    assert!(!web.was_a_worker_struck());
}

/// Returns a loopback port that is taken while the listener lives.
pub(super) fn taken_port() -> (std::net::TcpListener, u16) {
    let port = super::free_port();
    (
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap(),
        port,
    )
}

/// Checks that a config that passes its validator and does not load is rolled back, proven by new
/// workers.
pub(super) fn does_not_load(web: &Web, text: &str) {
    // It retries for some seconds. Its next signal waits for that.
    web.fleet("timeout = \"1500ms\"");
    let stand = web.stand();
    let result = web.broadcast_config(text).expect(6);
    let one = only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["failure"]["kind"], &one["validated"]),
        (&"reverted".into(), &"timed_out".into(), &true.into())
    );
    assert!((0..16).all(|_| web.word().as_deref() == Some("one")));
    assert_eq!(
        (std::fs::read_to_string(web.file()).unwrap(), web.sighups()),
        (stand.text, stand.sighups + 2)
    );
    web.is_settled();
    let now = web.daemon.children();
    assert!(
        !stand.children.iter().any(|(pid, _)| now.contains(pid)),
        "{now:?}"
    );
    assert!(!web.was_a_worker_struck());
}

/// Edits the live config without a reload, as a forgetful administrator does.
pub(super) fn overwrite(web: &Web, text: &str) {
    write(&web.file(), text);
}

/// Checks an old worker that still listens. New requests may reach it, so nothing is proven until
/// it closes, and it is named.
pub(super) fn old_one_listens(web: &Web) {
    // Its new worker must exist by then, on a busy machine too.
    web.fleet("timeout = \"5s\"");
    web.is_settled();
    let (old, text) = (
        web.daemon.children()[0],
        std::fs::read_to_string(web.file()).unwrap(),
    );
    stop(old);
    let result = web.watch(&web.config("two"), |event| {
        if event["event"] == "rollback_began" {
            assert!(!listening(old).is_empty());
            kill(Pid::from_raw(old), Signal::SIGCONT).unwrap();
        }
    });
    let result = result.expect(6);
    let one = only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["failure"]["kind"]),
        (&"reverted".into(), &"foreign_listener".into())
    );
    assert!(
        one["failure"]["text"]
            .as_str()
            .unwrap()
            .contains(&format!("pid {old}")),
        "{one:#}"
    );
    until("it is gone", || started(old).is_none());
    web.is_settled();
    assert_eq!(
        (
            web.word().as_deref(),
            std::fs::read_to_string(web.file()).unwrap()
        ),
        (Some("one"), text)
    );
    assert!(!web.was_a_worker_struck());
}

/// Checks a config that passes its validator and ends the process. It is rolled back, and the
/// restart command is shown.
pub(super) fn dies(web: &Web, text: &str) {
    web.fleet("");
    let before = std::fs::read_to_string(web.file()).unwrap();
    let result = web.broadcast_config(text).expect(7);
    let one = only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["failure"]["kind"], &one["pid"]),
        (&"died".into(), &"died".into(), &web.daemon.pid().into())
    );
    assert_eq!(
        (
            std::fs::read_to_string(web.file()).unwrap(),
            web.daemon.runs()
        ),
        (before, false)
    );
    let command = one["start"].as_str().unwrap_or_else(|| panic!("{one:#}"));
    assert!(
        result.stderr.lines().any(|line| line.trim() == command),
        "{}",
        result.stderr
    );
    assert!(
        result.json["next"]
            .as_array()
            .unwrap()
            .contains(&one["start"]),
        "{}",
        result.stderr
    );
    // The test has not reaped it, so a program that reads its pid file would take it for a running
    // one.
    let _ = std::fs::remove_file(web.daemon.path("pid"));
    let typed = Daemon::spawn(folder(), Command::new("sh").args(["-c", command]));
    until("it says the old word", || {
        assert!(typed.runs(), "{command}: {}", typed.log());
        web.word().as_deref() == Some("one")
    });
}

/// Does the same, and the group's `revive` restarts it on the old config.
pub(super) fn is_revived(web: &Web, text: &str, revive: &[&str]) {
    web.fleet(&format!("revive = {revive:?}"));
    let before = std::fs::read_to_string(web.file()).unwrap();
    let result = web.broadcast_config(text).expect(6);
    let one = only_instance(&result);
    let old = web.daemon.pid();
    assert_eq!(
        (
            &one["outcome"],
            &one["failure"]["kind"],
            &one["successor_of"]
        ),
        (&"reverted".into(), &"died".into(), &old.into())
    );
    let new = i32::try_from(one["pid"].as_i64().unwrap()).unwrap();
    assert!(new != old, "{one:#}");
    assert!(started(new).is_some(), "{one:#}");
    assert!(
        words(new).contains(&web.file().display().to_string()),
        "{one:#}"
    );
    assert_eq!(
        (
            web.word().as_deref(),
            std::fs::read_to_string(web.file()).unwrap(),
            web.daemon.runs()
        ),
        (Some("one"), before, false)
    );
}
