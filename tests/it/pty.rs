//! A command on a terminal of its own, by `script`.

use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::support::{Fleet, until};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A command on a terminal of `columns`, whose output is kept in a file.
pub(crate) struct Terminal {
    script: Child,
    typescript: PathBuf,
}

impl Terminal {
    /// Returns `None` if this machine has no `script`.
    pub(crate) fn start(fleet: &Fleet, columns: usize, command: &Command) -> Option<Self> {
        Self::start_with(fleet, columns, 24, command)
    }

    /// Starts a command on a terminal of `rows` too.
    pub(crate) fn start_with(
        fleet: &Fleet,
        columns: usize,
        rows: usize,
        command: &Command,
    ) -> Option<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let typescript = fleet.path(&format!("typescript-{number}"));
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let mut script = Command::new("script");
        script
            .args([
                "-q",
                "-e",
                "-f",
                "-c",
                &format!("stty cols {columns} rows {rows}; exec {}", words.join(" ")),
            ])
            .arg(&typescript);
        match script
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
        {
            Ok(script) => Some(Self { script, typescript }),
            Err(_) => {
                crate::support::skipped("there is no `script`");
                None
            }
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.typescript).unwrap_or_default()).into_owned()
    }

    /// Types on the keyboard of the terminal.
    pub(crate) fn press(&mut self, keys: &str) {
        let keyboard = self.script.stdin.as_mut().unwrap();
        keyboard.write_all(keys.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// The process on the terminal.
    pub(crate) fn hello(&self, fleet: &Fleet) -> i32 {
        let parent = i32::try_from(self.script.id()).unwrap();
        let mut found = None;
        until("the run is on the terminal", || {
            let all = procfs::process::all_processes()
                .unwrap()
                .flatten()
                .filter(|p| p.exe().is_ok_and(|exe| exe == fleet.exe()));
            found = all
                .filter_map(|p| p.stat().ok())
                .find(|stat| stat.ppid == parent)
                .map(|stat| stat.pid);
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn end(&mut self) -> Option<i32> {
        self.script.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
