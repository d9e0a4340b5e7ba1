//! The behaviour of `hello` with a daemon of a shipped kind. Each daemon defines what distinguishes
//! two loads.

use std::{cell::Cell, os::unix::fs::MetadataExt};

use nix::sys::signal::Signal;

use super::{Daemon, acts::only_instance, services::ctime, started};
use crate::support::{CommandResult, until};

/// A validator that passes and stops the daemon. It first leaves time for the second reading before
/// the signal. It waits until the signal is not blocked: PostgreSQL blocks it for every new
/// connection. keepalived always does, and takes the signal by a signalfd.
const STOPS: &str = r#"validate = ["sh", "-c", """
sleep 2; n=0
while kill -STOP {pid}; do
  until grep -q '^State:.T' /proc/{pid}/status; do :; done
  grep -q '^SigBlk:.*[02468ace]$' /proc/{pid}/status && exit
  n=$((n + 1)); [ $n -lt 100 ] || exit 0
  kill -CONT {pid}; sleep 0.01
done""", "{candidate}"]"#;

/// Returns the keys of a kind's file, without its row in the tables about kinds.
pub(super) fn keys_of(kind: &str) -> &str {
    kind.split_once("\n[cells]").map_or(kind, |(keys, _)| keys)
}

/// A daemon, and the group that matches it alone.
pub(crate) struct Case<'a> {
    pub(crate) daemon: &'a Daemon,
    /// A shipped kind.
    pub(crate) kind: &'static str,
    /// The name of its config in the daemon's folder.
    pub(crate) file: &'static str,
    /// The keys of the group besides its kind: `match`, and those that only this daemon needs.
    pub(crate) group: String,
    /// The group's own assertions. Empty for those of the kind.
    pub(crate) facts: String,
    /// A value that changes after every load, and only then.
    pub(crate) loads: &'a dyn Fn() -> String,
}

impl<'a> Case<'a> {
    /// Returns the case of a daemon whose executable has the name of its kind, and whose command
    /// line names its config. The assertions are those of the kind. Its group is written.
    pub(crate) fn of(
        daemon: &'a Daemon,
        (kind, file): (&'static str, &'static str),
        loads: &'a dyn Fn() -> String,
    ) -> Self {
        let config = daemon.path(file);
        let case = Self {
            daemon,
            kind,
            file,
            group: format!(
                "match = {{ exe = \"{kind}\", args = [\"{}\"] }}",
                config.display()
            ),
            facts: String::new(),
            loads,
        };
        case.fleet("");
        case
    }

    /// Returns the case with assertions of its own. Its group is written.
    pub(crate) fn with_facts(self, facts: String) -> Self {
        let case = Self { facts, ..self };
        case.fleet("");
        case
    }
}

impl Case<'_> {
    /// Writes the group, with `more` keys in it.
    pub(crate) fn fleet(&self, more: &str) {
        let Self {
            kind, group, facts, ..
        } = self;
        self.daemon.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"one\"\nkind = \"{kind}\"\n{group}\n{more}\n{facts}\n"));
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.daemon.path(self.file)).unwrap()
    }

    /// Writes the live file in place, as an editor does: owner and mode stay.
    pub(crate) fn edit(&self, text: &str) {
        std::fs::write(self.daemon.path(self.file), text).unwrap();
    }

    pub(crate) fn change(&self, text: &str) -> CommandResult {
        let new = self.daemon.write("new", text);
        self.daemon.broadcast(&["--config", new.to_str().unwrap()])
    }

    /// Returns all properties of the live file that a write or an exchange would change.
    fn stands(&self) -> (String, u64, i64, u32, u32) {
        let meta = self.daemon.path(self.file).metadata().unwrap();
        (
            self.text(),
            meta.ino(),
            ctime(&self.daemon.path(self.file)),
            meta.mode(),
            meta.uid(),
        )
    }

    /// Checks a run that ends with `code`, prints all of `says`, touches no file and causes no
    /// load.
    pub(crate) fn untouched(
        &self,
        code: i32,
        says: &[&str],
        run: impl FnOnce() -> CommandResult,
    ) -> CommandResult {
        let (before, loads) = (self.stands(), (self.loads)());
        let result = run().expect(code);
        assert!(
            says.iter().all(|word| result.stderr.contains(word)),
            "{says:?}: {}",
            result.stderr
        );
        assert_eq!(
            (self.stands(), (self.loads)(), self.daemon.runs()),
            (before, loads, true)
        );
        result
    }

    /// Makes a change that is confirmed with this proof. Owner and mode of the file stay.
    pub(crate) fn takes(&self, text: &str, proof: &str) {
        let (before, loads) = (self.stands(), (self.loads)());
        let result = self.change(text).expect(0);
        let one = only_instance(&result);
        assert_eq!(
            (&one["outcome"], &one["proof"], &one["pid"]),
            (
                &"confirmed".into(),
                &proof.into(),
                &self.daemon.pid().into()
            ),
            "{:#}",
            result.json
        );
        let now = self.stands();
        assert_eq!((now.0.as_str(), now.3, now.4), (text, before.3, before.4));
        assert_ne!((self.loads)(), loads, "seen from outside");
    }

    /// Makes a change that passes the validator and does not load. The old file is rolled back and
    /// proven.
    pub(crate) fn rolls_back(&self, text: &str, failure: &str) -> CommandResult {
        self.rolls_back_as(text, failure, (6, "reverted"))
    }

    /// Does the same with this exit code and outcome.
    pub(crate) fn rolls_back_as(
        &self,
        text: &str,
        failure: &str,
        (code, outcome): (i32, &str),
    ) -> CommandResult {
        let (before, loads) = (self.text(), (self.loads)());
        let result = self.change(text).expect(code);
        let one = only_instance(&result);
        assert_eq!(
            (&one["outcome"], &one["failure"]["kind"], &one["pid"]),
            (&outcome.into(), &failure.into(), &self.daemon.pid().into()),
            "{:#}",
            result.json
        );
        assert_eq!(self.text(), before);
        assert_ne!((self.loads)(), loads, "the old config was loaded again");
        result
    }

    /// Checks that a proven config causes no signal until the file changes.
    pub(crate) fn settles(&self) -> CommandResult {
        self.settles_as((0, "confirmed"))
    }

    /// Does the same with this exit code and outcome for equal bytes.
    pub(crate) fn settles_as(&self, (code, outcome): (i32, &str)) -> CommandResult {
        let text = self.text();
        for result in [
            self.untouched(0, &[], || self.change(&text)),
            self.untouched(0, &[], || self.daemon.broadcast(&[])),
        ] {
            assert_eq!(result.states(), ["unchanged"]);
        }
        let loads = (self.loads)();
        self.edit(&text);
        let result = self.change(&text).expect(code);
        assert_eq!(result.states(), [outcome]);
        assert_ne!((self.loads)(), loads, "seen from outside");
        result
    }

    /// Checks that a config that the validator rejects is refused before the run. The same content
    /// on the disk is reported.
    pub(crate) fn refuses(&self, broken: &str, says: &str) {
        self.untouched(4, &["the new config is not valid", says], || {
            self.change(broken)
        });
        let fine = self.daemon.status().expect(0);
        assert_eq!(fine.json["instances"][0]["pid"], self.daemon.pid());
        let (text, loads) = (self.text(), (self.loads)());
        self.edit(broken);
        let result = self.daemon.status().expect(7);
        let faults = result.json["instances"][0]["faults"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f.as_str().unwrap())
            .collect::<Vec<_>>()
            .join("; ");
        assert!(faults.contains("next reload would fail"), "{faults}");
        assert!(faults.contains(says), "{faults}");
        self.edit(&text);
        assert_eq!((self.loads)(), loads);
    }

    /// Stops it before the survey, stops it between survey and install, and kills it during the
    /// proof.
    pub(crate) fn stops_and_dies(&self, text: &str, more: &str) {
        self.is_refused_while_stopped(text);
        let loads = (self.loads)();
        self.stays_stopped(text, more);
        until("the signal that waited for it loads the old file", || {
            (self.loads)() != loads
        });
        self.is_killed(text, more);
    }

    /// Stops it before the survey, and continues it after the run.
    pub(crate) fn is_refused_while_stopped(&self, text: &str) {
        let (old, loads) = (self.text(), (self.loads)());
        self.daemon.stop();
        let result = self.change(text).expect(5);
        assert!(
            result
                .stderr
                .contains(&format!("pid {} is stopped", self.daemon.pid())),
            "{}",
            result.stderr
        );
        assert_eq!(self.text(), old);
        self.daemon.signal(Signal::SIGCONT);
        assert_eq!((self.loads)(), loads, "no signal waited for it");
    }

    /// Stops it between survey and install, and continues it after the run.
    pub(crate) fn stays_stopped(&self, text: &str, more: &str) {
        let old = self.text();
        // The validator stops it.
        self.fleet(&format!(
            "timeout = \"200ms\"\n{}\n{more}",
            self.validator_that_stops()
        ));
        let result = self.patiently(|| self.change(text)).expect(7);
        assert_eq!(
            (result.states(), &only_instance(&result)["failure"]["kind"]),
            (vec!["revert_failed"], &"timed_out".into()),
            "{:#}",
            result.json
        );
        assert!(
            result
                .stderr
                .contains(&format!("pid {}", self.daemon.pid())),
            "{}",
            result.stderr
        );
        assert_eq!(self.text(), old);
        self.daemon.signal(Signal::SIGCONT);
    }

    /// Kills it during the proof.
    pub(crate) fn is_killed(&self, text: &str, more: &str) {
        let old = self.text();
        // It is stopped again, so that it proves nothing before it is killed.
        self.fleet(&format!(
            "timeout = \"50s\"\n{}\n{more}",
            self.validator_that_stops()
        ));
        let installed = Cell::new(false);
        let kill = |event: &str| {
            if event == "installed" && !installed.replace(true) {
                self.daemon.signal(Signal::SIGKILL);
            }
        };
        let result = self.patiently(|| self.follow(text, kill)).expect(7);
        assert_eq!(
            (result.states(), &only_instance(&result)["pid"]),
            (vec!["died"], &self.daemon.pid().into()),
            "{:#}",
            result.json
        );
        assert!(
            result
                .stderr
                .contains(&format!("pid {}", self.daemon.pid())),
            "{}",
            result.stderr
        );
        assert!(installed.get());
        assert!(started(self.daemon.pid()).is_none());
        assert_eq!(self.text(), old);
    }

    /// Makes a change that passes the validator and ends it. The old file is rolled back, and the
    /// command that starts it again is shown. Returns that command.
    pub(crate) fn dies(&self, text: &str) -> String {
        let old = self.text();
        let result = self.change(text).expect(7);
        let one = only_instance(&result);
        assert_eq!(
            (&one["outcome"], &one["failure"]["kind"], &one["pid"]),
            (&"died".into(), &"died".into(), &self.daemon.pid().into()),
            "{:#}",
            result.json
        );
        assert_eq!((self.text(), self.daemon.runs()), (old, false));
        let command = one["start"].as_str().unwrap_or_else(|| panic!("{one:#}"));
        assert!(result.stderr.contains(command), "{}", result.stderr);
        command.to_owned()
    }

    /// Does the same, and the group's `revive` starts it again on the old config.
    pub(crate) fn is_revived(&self, text: &str, revive: &[&str]) {
        self.fleet(&format!("revive = {revive:?}"));
        let (old, pid) = (self.text(), self.daemon.pid());
        let result = self.change(text).expect(6);
        let one = only_instance(&result);
        assert_eq!(
            (
                &one["outcome"],
                &one["failure"]["kind"],
                &one["successor_of"]
            ),
            (&"reverted".into(), &"died".into(), &pid.into()),
            "{:#}",
            result.json
        );
        let new = i32::try_from(one["pid"].as_i64().unwrap()).unwrap();
        assert!(started(new).is_some(), "{one:#}");
        assert_eq!((self.text(), self.daemon.runs()), (old, false));
    }

    /// Stops it between survey and install, and continues it when the rollback begins.
    pub(crate) fn continues(&self, text: &str) {
        self.continues_as(text, &[(6, "reverted")]);
    }

    /// Does the same with these exit codes and outcomes.
    pub(crate) fn continues_as(&self, text: &str, ends: &[(i32, &str)]) {
        let old = self.text();
        self.fleet(&format!(
            "timeout = \"2s\"\n{}",
            self.validator_that_stops()
        ));
        let go_on = |event: &str| {
            if event == "rollback_began" {
                self.daemon.signal(Signal::SIGCONT);
            }
        };
        let result = self.patiently(|| self.follow(text, go_on));
        let end = (
            result.code,
            only_instance(&result)["outcome"].as_str().unwrap(),
        );
        assert!(ends.contains(&end), "{end:?}: {}", result.stderr);
        assert_eq!(
            only_instance(&result)["failure"]["kind"],
            "timed_out",
            "{:#}",
            result.json
        );
        assert_eq!(self.text(), old);
        self.fleet("");
    }

    /// Returns a validator that passes and stops it. mosquitto nearly always blocks the signal, and
    /// takes it later. named waits for it in sigwait(3), and is asked by a command here.
    fn validator_that_stops(&self) -> String {
        match self.kind {
            "mosquitto" | "named" => STOPS.replace("[02468ace]", ""),
            _ => STOPS.to_owned(),
        }
    }

    /// Repeats a run that was refused because a busy machine delayed the second reading until the
    /// daemon was stopped, or because the daemon still ends the reload of before.
    fn patiently(&self, run: impl Fn() -> CommandResult) -> CommandResult {
        let mut result = run();
        for _ in 0..9 {
            let is_early = ["no second answer", "has no listening socket"]
                .iter()
                .any(|why| result.stderr.contains(why));
            if result.code != 5 || !is_early {
                break;
            }
            self.daemon.signal(Signal::SIGCONT);
            result = run();
        }
        result
    }

    /// Makes a change and calls back with the name of each event.
    fn follow(&self, text: &str, mut each: impl FnMut(&str)) -> CommandResult {
        let new = self.daemon.write("new", text);
        self.daemon
            .watch(&["--config", new.to_str().unwrap()], |event| {
                each(event["event"].as_str().unwrap_or_default())
            })
    }
}
