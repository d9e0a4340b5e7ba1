//! What every server is put through: `hello broadcast` with the kind that is shipped, seen from outside.

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
use crate::support::{Said, try_get, until, write};

/// What it says one after another; of different lengths, so that no two configs are equal in size.
const WORDS: [&str; 4] = ["one", "three", "seventeen", "four"];
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(1);
/// Validates nothing, and the master stands still when it has ended.
const STOPS: &str = r#"validate = ["sh", "-c", "kill -STOP {pid}; until grep -q '^State:.T' /proc/{pid}/status; do :; done", "{candidate}"]"#;

/// What nobody may have touched.
#[derive(Debug, PartialEq)]
pub(super) struct Stand {
    pub(super) text: String,
    inode: u64,
    pub(super) children: Vec<(i32, Option<u64>)>,
    hangups: usize,
}

impl Web {
    /// A fleet of this one alone, of its kind; `more` stands in its group.
    pub(super) fn fleet(&self, more: &str) {
        let (kind, matching) = (self.sort.kind, self.matching());
        self.daemon.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"web\"\nkind = \"{kind}\"\nmatch = {matching}\n{more}\n"));
    }

    pub(super) fn matching(&self) -> String {
        (self.sort.matching)(self.daemon.dir.path(), self.port)
    }

    /// Broadcasts a config.
    pub(super) fn put(&self, text: &str) -> Said {
        self.daemon
            .broadcast(&["--config", self.written(text).to_str().unwrap()])
    }

    /// As [`Web::put`], and hands on each event as it happens.
    pub(super) fn watch(&self, text: &str, on_event: impl FnMut(&Value)) -> Said {
        self.daemon.watch(
            &["--config", self.written(text).to_str().unwrap()],
            on_event,
        )
    }

    fn written(&self, text: &str) -> PathBuf {
        self.is_settled();
        self.daemon.write("new", text)
    }

    /// Waits until it is as it was when it started: it has its title, takes the signal, and old workers are gone.
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
            self.takes_hangup() && title() && self.daemon.children().len() == self.sort.workers
        });
    }

    /// How often it says that it got the signal.
    pub(super) fn hangups(&self) -> usize {
        let (log, words) = self.sort.tells;
        std::fs::read_to_string(self.daemon.path(log))
            .unwrap()
            .matches(words)
            .count()
    }

    /// Whether one of its workers ever got the signal.
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
            hangups: self.hangups(),
        }
    }
}

/// The only instance of a run.
pub(super) fn only(said: &Said) -> &Value {
    let all = said.json["instances"].as_array().unwrap();
    assert_eq!(all.len(), 1, "{:#}", said.json);
    &all[0]
}

/// Four clients that ask over fresh connections, until it is dropped.
struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Load {
    fn on(port: u16) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = || {
            let over = over.clone();
            std::thread::spawn(move || {
                let (mut answered, mut dropped) = (0, Vec::new());
                while !over.load(Ordering::Relaxed) {
                    match try_get(&format!("127.0.0.1:{port}"), "/") {
                        Ok((head, body))
                            if head.contains(" 200 ") && WORDS.contains(&body.as_str()) =>
                        {
                            answered += 1
                        }
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

    /// How many requests were answered, and what became of the others.
    fn end(mut self) -> (usize, Vec<String>) {
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

/// Good changes converge one after another and are seen from outside; who runs the config already is signalled no more. With `load` no request is dropped.
pub(super) fn converges(web: &Web, load: bool) {
    web.fleet("");
    let load = load.then(|| Load::on(web.port));
    for word in &WORDS[1..] {
        let old = web.daemon.children();
        let said = web.put(&web.config(word)).expect(0);
        let one = only(&said);
        assert_eq!(
            (&one["state"], &one["proof"], &one["pid"]),
            (
                &"confirmed".into(),
                &"workers".into(),
                &web.daemon.pid().into()
            )
        );
        assert!((0..16).all(|_| web.says().as_deref() == Some(word)));
        assert!(old.iter().all(|pid| listening(*pid).is_empty()));
    }
    web.is_settled();
    let stand = web.stand();
    assert_eq!(
        (stand.hangups, web.was_a_worker_struck()),
        (WORDS.len() - 1, false),
        "{} only the master was signalled, once for each change",
        web.daemon.log()
    );
    assert_eq!(web.put(&stand.text).expect(0).states(), ["unchanged"]);
    assert_eq!(web.daemon.broadcast(&[]).expect(0).states(), ["unchanged"]);
    assert_eq!(web.stand(), stand);
    if let Some((answered, dropped)) = load.map(Load::end) {
        assert!(dropped.is_empty(), "{answered} answered; {dropped:?}");
        assert!(answered > 100, "{answered} answered; {dropped:?}");
    }
}

/// What its own validator refuses is exit 4, and nobody was touched.
pub(super) fn refuses(web: &Web, text: &str, says: &str) {
    let word = web.says();
    web.is_settled();
    let stand = web.stand();
    let said = web.put(text).expect(4);
    assert!(said.stderr.contains(says), "{}", said.stderr);
    assert_eq!((web.stand(), web.says()), (stand, word));
}

/// A group that is the kind's own text, as `hello kinds NAME` prints it, with another `match` alone.
pub(super) fn copied(web: &Web) {
    let said = Command::new(env!("CARGO_BIN_EXE_hello"))
        .args(["kinds", web.sort.kind])
        .output()
        .unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
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
        web.put(&web.config("twelve")).expect(0).states(),
        ["confirmed"]
    );
    assert_eq!(web.says().as_deref(), Some("twelve"));
}

/// Stopped before the survey, it is refused.
pub(super) fn stopped_before(web: &Web) {
    web.fleet("");
    let new = web.written(&web.config("two"));
    let stand = web.stand();
    web.daemon.stop();
    let said = web
        .daemon
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(5);
    assert!(
        said.stderr
            .contains(&format!("pid {} is stopped", web.daemon.pid())),
        "{}",
        said.stderr
    );
    assert_eq!(web.stand(), stand);
    web.daemon.signal(Signal::SIGCONT);
    assert_eq!(
        (said.states(), web.says().as_deref()),
        (vec!["refused"], Some("one"))
    );
    web.is_settled();
    assert_eq!(web.stand(), stand);
}

/// Stopped after the survey, it proves neither the new config nor the old one; going on, it reloads the old one.
pub(super) fn stopped_after(web: &Web) {
    web.fleet(&format!("timeout = \"400ms\"\n{STOPS}"));
    let stand = web.stand();
    let said = web.put(&web.config("two")).expect(7);
    let one = only(&said);
    assert_eq!(
        (&one["state"], &one["trouble"]["kind"], &one["pid"]),
        (
            &"revert_failed".into(),
            &"timed_out".into(),
            &web.daemon.pid().into()
        )
    );
    assert!(
        said.stderr.contains(&format!(
            "pid {} is not proven on the old config",
            web.daemon.pid()
        )),
        "{}",
        said.stderr
    );
    assert_eq!(
        (std::fs::read_to_string(web.file()).unwrap(), web.hangups()),
        (stand.text, stand.hangups)
    );
    web.daemon.signal(Signal::SIGCONT);
    until("it has taken the signal", || web.hangups() > stand.hangups);
    web.is_settled();
    until("it says the old word", || {
        web.says().as_deref() == Some("one")
    });
}

/// Stopped after the survey until the undo begins, it is proven on the old config.
pub(super) fn stopped_until_the_undo(web: &Web) {
    web.fleet(&format!("timeout = \"2s\"\n{STOPS}"));
    let stand = web.stand();
    let said = web.watch(&web.config("two"), |event| {
        if event["event"] == "undo_began" {
            web.daemon.signal(Signal::SIGCONT);
        }
    });
    let said = said.expect(6);
    let one = only(&said);
    assert_eq!(
        (&one["state"], &one["trouble"]["kind"], &one["pid"]),
        (
            &"reverted".into(),
            &"timed_out".into(),
            &web.daemon.pid().into()
        )
    );
    // sshd takes its own place once for each of the two signals, and nothing listens meanwhile.
    let said: Vec<_> = (0..16).map(|_| web.says()).collect();
    assert!(said.iter().flatten().all(|word| word == "one"), "{said:?}");
    assert!(web.sort.workers == 0 || !said.contains(&None), "{said:?}");
    assert_eq!(std::fs::read_to_string(web.file()).unwrap(), stand.text);
    until("it says the old word", || {
        web.says().as_deref() == Some("one")
    });
    web.is_settled();
    assert!(web.hangups() > stand.hangups);
    let now = web.daemon.children();
    assert!(
        !stand.children.iter().any(|(pid, _)| now.contains(pid)),
        "{now:?}"
    );
}

/// Killed once the new config is installed, it is named, and the old config is back.
pub(super) fn killed(web: &Web) {
    web.fleet(&format!("timeout = \"20s\"\n{STOPS}"));
    let text = std::fs::read_to_string(web.file()).unwrap();
    let mut killed = false;
    let said = web.watch(&web.config("two"), |event| {
        if event["event"] == "installed" && !std::mem::replace(&mut killed, true) {
            web.daemon.signal(Signal::SIGKILL);
        }
    });
    let said = said.expect(7);
    let one = only(&said);
    assert_eq!(
        (&one["state"], &one["trouble"]["kind"], &one["pid"]),
        (&"died".into(), &"died".into(), &web.daemon.pid().into())
    );
    assert!(
        said.stderr
            .contains(&format!("pid {} died", web.daemon.pid())),
        "{}",
        said.stderr
    );
    assert_eq!(std::fs::read_to_string(web.file()).unwrap(), text);
}

/// An old worker that serves an open connection hinders nothing, and is named.
pub(super) fn drains(web: &Web) {
    web.fleet("");
    let old = web.daemon.children();
    let open = web.open();
    let said = web.put(&web.config("three")).expect(0);
    let named = only(&said)["draining"].clone();
    until("only the busy one is left", || {
        old.iter().filter(|pid| started(**pid).is_some()).count() == 1
    });
    let busy = *old.iter().find(|pid| started(**pid).is_some()).unwrap();
    assert_eq!(
        (only(&said)["state"].as_str(), named),
        (Some("confirmed"), serde_json::json!([busy]))
    );
    assert!(
        said.stderr.contains(&format!("draining: pid {busy}")),
        "{}",
        said.stderr
    );
    assert!((0..16).all(|_| web.says().as_deref() == Some("three")));
    drop(open);
    until("it is gone", || started(busy).is_none());
    assert!(!web.was_a_worker_struck());
}

/// A port of loopback that is taken as long as what is returned lives.
pub(super) fn taken() -> (std::net::TcpListener, u16) {
    let port = super::free_port();
    (
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap(),
        port,
    )
}

/// What passes its validator and does not load is undone, and the old config proven live by new workers.
pub(super) fn does_not_load(web: &Web, text: &str) {
    // It tries for some seconds: its next signal waits for the end of that.
    web.fleet("timeout = \"1500ms\"");
    let stand = web.stand();
    let said = web.put(text).expect(6);
    let one = only(&said);
    assert_eq!(
        (&one["state"], &one["trouble"]["kind"], &one["validated"]),
        (&"reverted".into(), &"timed_out".into(), &true.into())
    );
    assert!((0..16).all(|_| web.says().as_deref() == Some("one")));
    assert_eq!(
        (std::fs::read_to_string(web.file()).unwrap(), web.hangups()),
        (stand.text, stand.hangups + 2)
    );
    web.is_settled();
    let now = web.daemon.children();
    assert!(
        !stand.children.iter().any(|(pid, _)| now.contains(pid)),
        "{now:?}"
    );
    assert!(!web.was_a_worker_struck());
}

/// Writes the live config as an administrator does who forgets the reload.
pub(super) fn overwrite(web: &Web, text: &str) {
    write(&web.file(), text);
}

/// An old worker that still listens may answer whoever asks anew: nothing is proven until it does so no more, and it is named.
pub(super) fn old_one_listens(web: &Web) {
    // Its new worker must be there by then, however busy the machine is.
    web.fleet("timeout = \"5s\"");
    web.is_settled();
    let (old, text) = (
        web.daemon.children()[0],
        std::fs::read_to_string(web.file()).unwrap(),
    );
    stop(old);
    let said = web.watch(&web.config("two"), |event| {
        if event["event"] == "undo_began" {
            assert!(!listening(old).is_empty());
            kill(Pid::from_raw(old), Signal::SIGCONT).unwrap();
        }
    });
    let said = said.expect(6);
    let one = only(&said);
    assert_eq!(
        (&one["state"], &one["trouble"]["kind"]),
        (&"reverted".into(), &"stranger".into())
    );
    assert!(
        one["trouble"]["text"]
            .as_str()
            .unwrap()
            .contains(&format!("pid {old}")),
        "{one:#}"
    );
    until("it is gone", || started(old).is_none());
    web.is_settled();
    assert_eq!(
        (
            web.says().as_deref(),
            std::fs::read_to_string(web.file()).unwrap()
        ),
        (Some("one"), text)
    );
    assert!(!web.was_a_worker_struck());
}

/// What ends it although its validator has passed it is put back, and the command that starts it again is said.
pub(super) fn dies(web: &Web, text: &str) {
    web.fleet("");
    let before = std::fs::read_to_string(web.file()).unwrap();
    let said = web.put(text).expect(7);
    let one = only(&said);
    assert_eq!(
        (&one["state"], &one["trouble"]["kind"], &one["pid"]),
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
        said.stderr.lines().any(|line| line.trim() == command),
        "{}",
        said.stderr
    );
    assert!(
        said.json["next"]
            .as_array()
            .unwrap()
            .contains(&one["start"]),
        "{}",
        said.stderr
    );
    let typed = Daemon::spawn(folder(), Command::new("sh").args(["-c", command]));
    until("it says the old word", || {
        assert!(typed.runs(), "{command}: {}", typed.log());
        web.says().as_deref() == Some("one")
    });
}

/// The same, and its group's `revive` starts it again on the old config.
pub(super) fn is_revived(web: &Web, text: &str, revive: &[&str]) {
    web.fleet(&format!("revive = {revive:?}"));
    let before = std::fs::read_to_string(web.file()).unwrap();
    let said = web.put(text).expect(6);
    let one = only(&said);
    let old = web.daemon.pid();
    assert_eq!(
        (&one["state"], &one["trouble"]["kind"], &one["successor_of"]),
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
            web.says().as_deref(),
            std::fs::read_to_string(web.file()).unwrap(),
            web.daemon.runs()
        ),
        (Some("one"), before, false)
    );
}
