//! A mount namespace of one host: its state directory is a small filesystem there, and its boot id
//! another file.

use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{Fleet, Killed, runs_as_root, skipped};

/// The bytes of the state directory. A run of one server needs a tenth of it.
const SIZE: &str = "2m";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Returns whether namespaces of these kinds can be made. Reports the caller as skipped if not.
pub(crate) fn has_namespaces(kinds: &[&str]) -> bool {
    if !runs_as_root("namespaces need root") {
        return false;
    }
    let mut unshare = Command::new("unshare");
    let output = unshare.args(kinds).arg("true").output();
    let is_made = output.is_ok_and(|output| output.status.success());
    if !is_made {
        skipped(&format!("no namespaces are to be had: {kinds:?}"));
    }
    is_made
}

/// The process that keeps a mount namespace.
pub(crate) struct Mounts {
    keeper: Killed,
    state: PathBuf,
    boots: Cell<u32>,
    boot_ids: tempfile::TempDir,
}

impl Mounts {
    /// Makes the namespace of a host.
    pub(crate) fn of(host: &Fleet) -> Self {
        let state = host.path("state");
        std::fs::create_dir(&state).unwrap();
        let script =
            "mount -t tmpfs -o mode=755,size=\"$1\" state \"$0\" && echo ready && exec cat";
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "sh", "-c", script])
            .arg(&state)
            .arg(SIZE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut keeper = Killed(unshare.spawn().unwrap());
        let mut line = String::new();
        let mut output = BufReader::new(keeper.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "no filesystem can be mounted");
        Self {
            keeper,
            state,
            boots: Cell::new(0),
            boot_ids: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns the words before a command that runs in the namespace, with a blank behind them.
    pub(crate) fn enter(&self) -> String {
        format!("nsenter --mount=/proc/{}/ns/mnt ", self.keeper.id())
    }

    /// Returns the command that starts the server of the host there.
    pub(crate) fn serve(&self, host: &Fleet) -> Command {
        let mut serve = self.command(&[]);
        serve
            .arg(host.exe())
            .args(["serve", "--config"])
            .arg(host.path("web.toml"));
        serve
    }

    /// Returns a command that runs in the namespace, with these first words.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let enter = self.enter();
        let mut all = enter.split_whitespace();
        let mut command = Command::new(all.next().unwrap());
        command.args(all).args(words);
        command
    }

    /// Returns where this process sees a path of the namespace.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.keeper.id());
        Path::new(&root).join(path.strip_prefix("/").unwrap())
    }

    /// Gives the host another boot id.
    pub(crate) fn new_boot_id(&self) {
        let boot = self.boots.get() + 1;
        self.boots.set(boot);
        let file = self.boot_ids.path().join(boot.to_string());
        std::fs::write(&file, format!("00000000-0000-4000-8000-{boot:012}\n")).unwrap();
        let mut mount = self.command(&["mount", "--bind"]);
        let status = mount.arg(&file).arg(BOOT_ID).status();
        assert!(status.unwrap().success(), "the boot id cannot be replaced");
    }

    /// Returns a script of a shell that leaves no room in the state directory. A page that has room
    /// would take what follows, so each journal is filled to the end of its last one: blanks before
    /// an event are no part of it.
    pub(crate) fn fill(&self) -> String {
        let state = self.seen(&self.state);
        format!(
            "cd {} && for file in runs/*/events.jsonl; do\n\
             [ -e $file ] || continue\n\
             head -c $(((4096 - $(stat -c %s $file) % 4096) % 4096)) /dev/zero | \
             tr '\\0' ' ' >> $file\n\
             done\n\
             dd if=/dev/zero of=filler bs=4k 2> /dev/null; true",
            state.display()
        )
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        let _ = std::fs::remove_file(self.seen(&self.state.join("filler")));
    }
}
