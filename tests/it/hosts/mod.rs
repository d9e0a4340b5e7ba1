//! `hello hosts`: hosts behind real sshd, and behind commands that misbehave.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{CommandEnd, run_to_end, without_cargo, write};

mod attached;
mod bed;
mod claimed;
mod closed;
mod commands;
mod elsewhere;
mod faults;
mod forget;
mod hints;
mod history;
mod interrupted;
mod killed;
mod lab;
mod links;
mod locks;
mod lost;
#[cfg(feature = "nats")]
mod nats;
mod operators;
mod rogue;
mod runs;
mod selection;
mod ssh;
mod ssh_runs;
mod status;
mod truth;
mod unresponsive;
mod wire;

/// A folder with a fleet file of the coordinator, and one of a host.
struct Testbed {
    dir: tempfile::TempDir,
}

impl Testbed {
    /// Writes the file of a host: a group, and what else it has.
    fn new(agent: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = format!("version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\n{agent}");
        write(&dir.path().join("own.toml"), &own);
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes the fleet file of the coordinator.
    fn fleet(&self, hosts: &str) {
        write(
            &self.path("fleet.toml"),
            &format!("version = 1\n[hosts]\n{hosts}\n"),
        );
    }

    /// Returns the words that start the agent of a host.
    fn agent(&self) -> String {
        format!(
            "{} agent --stdio --fleet {} --state {}",
            env!("CARGO_BIN_EXE_hello"),
            self.text_path("own.toml"),
            self.text_path("state")
        )
    }

    /// Returns `connect` as a script of a shell. `{name}` and `{address}` are its words.
    fn script(script: &str) -> String {
        let words = ["sh", "-c", script, "{name}", "{address}"];
        format!("connect = {}", serde_json::to_string(&words).unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut hello = Command::new(env!("CARGO_BIN_EXE_hello"));
        without_cargo(&mut hello)
            .args(args)
            .arg("--fleet")
            .arg(self.path("fleet.toml"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        hello
    }

    fn run(&self, args: &[&str]) -> CommandEnd {
        run_to_end(&mut self.command(args))
    }

    /// Runs `hello hosts`, and returns its exit code and its answer.
    fn hosts(&self, args: &[&str]) -> (Option<i32>, Value) {
        let end = self.run(&[&["hosts", "-o", "json"], args].concat());
        assert!(end.json.is_object(), "{}", end.stderr);
        (end.code, end.json)
    }

    /// Runs `hello hosts`, and returns the only host, which ends with this code.
    fn host(&self, code: i32) -> Value {
        let (end, mut json) = self.hosts(&[]);
        assert_eq!(end, Some(code), "{json:#}");
        json["hosts"][0].take()
    }
}

fn text<'a>(host: &'a Value, key: &str) -> &'a str {
    host[key].as_str().unwrap_or_default()
}
