//! A fleet that a run is tried on many times, and what is seen of it with own eyes: over HTTP, on the disk, and in `/proc`.

use std::{
    cell::Cell,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::{
    daemons::started,
    rogue::Rogue,
    support::{Fleet, Said, get},
};

/// Servers of one shared file, and perhaps one that refuses what the others take.
pub(super) struct Place {
    pub(super) fleet: Fleet,
    picky: Option<Rogue>,
    /// Resolved, with everything in it that a run changes.
    pub(super) dir: PathBuf,
    /// Every config differs from all before.
    serial: Cell<usize>,
}

/// The old and the new config of one try.
pub(super) struct Change {
    pub(super) old: String,
    pub(super) new: String,
}

impl Place {
    /// `servers` that take everything; with `picky`, one more, the last to be signalled, that refuses every new config.
    pub(super) fn new(servers: usize, picky: bool, waves: &str) -> Self {
        let mut fleet = Fleet::start(0);
        let dir = fleet.dir.path().canonicalize().unwrap();
        // In a folder of its own, so that nothing else ever stands beside it.
        std::fs::create_dir(dir.join("etc")).unwrap();
        fleet.write("etc/web.toml", &fleet.text());
        let config = dir.join("etc/web.toml");
        (0..servers).for_each(|_| fleet.serve_from("etc/web.toml"));
        let exe = dir.join("picky");
        let picky = picky.then(|| {
            assert!(Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&exe).status().unwrap().success());
            Rogue::start(&exe, "picky", &config)
        });
        let name = fleet.exe().file_name().unwrap().to_str().unwrap().to_owned();
        let group = format!(
            "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\nvalidate = []\ncount = {}\nconfig = {config:?}\ntimeout = \"20s\"\n\
             match = {{ exe = [{name:?}, {exe:?}], args = [[\"serve\", \"rogue::run\"]] }}\n[rollout]\nwaves = {waves}\n",
            servers + usize::from(picky.is_some()),
        );
        fleet.write("fleet.toml", &group);
        Self { fleet, picky, dir, serial: Cell::new(0) }
    }

    pub(super) fn text(&self) -> String {
        std::fs::read_to_string(self.dir.join("etc/web.toml")).unwrap()
    }

    pub(super) fn ids(&self) -> Vec<(i32, u64)> {
        let pids = (0..self.fleet.len()).map(|at| self.fleet.pid(at)).chain(self.picky.as_ref().map(Rogue::pid));
        pids.map(|pid| (pid, started(pid).unwrap_or_else(|| panic!("pid {pid} has ended")))).collect()
    }

    pub(super) fn urls(&self) -> Vec<&str> {
        (0..self.fleet.len()).map(|at| self.fleet.url(at)).chain(self.picky.as_ref().map(|p| p.url.as_str())).collect()
    }

    /// Another config than any before, written to `new.toml`; the one of now to `old.toml`.
    pub(super) fn change(&self) -> Change {
        self.serial.set(self.serial.get() + 1);
        let old = self.text();
        // What the picky one refuses has this word in it.
        let word = if self.picky.is_some() { "refuse" } else { "take" };
        let new = format!("message = \"{word} {}\"\nlisten = \"127.0.0.1:0\"\n", self.serial.get());
        self.fleet.write("old.toml", &old);
        self.fleet.write("new.toml", &new);
        Change { old, new }
    }

    /// A run that brings the new config.
    pub(super) fn broadcast(&self) -> Command {
        self.fleet.command(&["-q", "-o", "json", "--config", self.dir.join("new.toml").to_str().unwrap()])
    }

    /// `hello resume` or `hello revert`.
    pub(super) fn go_on(&self, how: &str) -> Said {
        let file = if how == "resume" { "new.toml" } else { "old.toml" };
        let said = self.fleet.broadcast(&["--config", self.dir.join(file).to_str().unwrap()]);
        self.open().into_iter().for_each(|mark| std::fs::remove_file(mark).unwrap());
        said
    }

    /// Every instance answers one config, the file is that one, and it is the old or the new one: answers whether it is the new.
    pub(super) fn is_new(&self, change: &Change, context: &str) -> bool {
        let disk = self.text();
        assert!(disk == change.old || disk == change.new, "{context}: the file is neither old nor new: {disk}");
        let (message, digest) = (disk.split('"').nth(1).unwrap(), sha256(disk.as_bytes()));
        for url in self.urls() {
            let (head, body) = get(url, "/");
            assert_eq!(body, message, "{context}: {url} serves another config than the one on the disk");
            assert!(head.contains(&format!("x-config-sha256: {digest}")), "{context}: {url} was proven on other bytes: {head}");
        }
        disk == change.new
    }

    /// What a run has staged beside the file.
    pub(super) fn staged(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.join("etc")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "web.toml").collect()
    }

    /// The lock can be had, and no run is open.
    pub(super) fn is_over(&self, context: &str) {
        let dir = File::open(self.dir.join("etc")).unwrap();
        assert!(Flock::lock(dir, FlockArg::LockExclusiveNonblock).is_ok(), "{context}: the lock is held");
        assert_eq!(self.open(), Vec::<PathBuf>::new(), "{context}: a run is open");
    }

    pub(super) fn open(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.dir.join("state/open")).into_iter().flatten().map(|e| e.unwrap().path()).filter(|p| p.metadata().unwrap().len() > 0).collect()
    }

    /// Whether the bytes of this config are kept by a run.
    pub(super) fn keeps(&self, config: &str) -> bool {
        kept(&self.dir.join("state"), &sha256(config.as_bytes()), config.as_bytes())
    }

    /// How many runs were begun.
    pub(super) fn runs(&self) -> usize {
        std::fs::read_dir(self.dir.join("state/runs")).map_or(0, Iterator::count)
    }
}

fn kept(dir: &Path, name: &str, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path()).any(|path| {
        if path.is_dir() { kept(&path, name, bytes) } else { path.file_name().is_some_and(|n| n == name) && std::fs::read(&path).unwrap() == bytes }
    })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
