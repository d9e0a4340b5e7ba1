//! The earlier run that a run continues: the hosts that it is about, and what may be said where
//! some of them are no part of the command.

use std::collections::BTreeSet;

use super::decision::{Absent, Ready};
use crate::{
    event::{Abort, Verdict},
    hosts::{ReadyHost, UnreadyHost},
    inventory::{HostEntry, HostName},
    names,
    protocol::{HostLink as _, PartOf},
    refusal::Hint,
    runs::{RunOverHosts, Verb},
    screen,
};

/// The earlier run that a run over hosts continues.
#[derive(Debug)]
pub(crate) struct EarlierRun {
    /// The run, as this machine knows it.
    pub(crate) run: RunOverHosts,
    /// The command: [`Verb::Resume`] or [`Verb::Revert`].
    pub(crate) verb: Verb,
    /// ` --fleet FILE` and ` --state DIR`, as far as a suggested command needs them.
    pub(crate) arguments: String,
    /// ` --state DIR`, or empty.
    pub(crate) state_args: String,
}

impl EarlierRun {
    /// Tells whether an index names the hosts of the run.
    pub(super) fn has_index(&self) -> bool {
        !self.run.hosts.is_empty()
    }

    /// Checks what the hosts that are ready say of the run, and names every host of it that is no
    /// part of this command.
    ///
    /// # Errors
    /// Fails if the run came to its end everywhere, if hosts are unknown, or if the hosts do not
    /// agree on the direction. Nothing was touched.
    pub(super) fn check(&self, ready: &mut Ready, selected: &[HostEntry]) -> Result<(), Abort> {
        let Ready { hosts, absent, .. } = ready;
        if !self.has_index() {
            self.check_count(hosts, absent)?;
        }
        let selected: BTreeSet<&HostName> = selected.iter().map(|entry| &entry.name).collect();
        let is_away = |host: &&HostName| !selected.contains(host);
        for host in self.run.hosts.iter().filter(is_away) {
            absent.leave(host.clone(), "the command does not select it".into());
        }
        for host in self.run.others.iter().filter(is_away) {
            let why = format!("run {} continues a run on it, and not there", self.run.id);
            absent.leave(host.clone(), why);
        }
        absent.is_continued = true;
        self.check_direction(hosts)?;
        let is_over = !hosts.is_empty() && hosts.iter().all(|host| host.is_over);
        if is_over && !self.run.is_open && self.verb == Verb::Resume {
            let id = &self.run.id;
            let why = format!("run {id} came to its end, and there is nothing to resume");
            let what = "nothing was touched; what the run did, and how to restore the config from \
                        before it:";
            let commands = vec![self.history(), self.command("revert")];
            return Err(refused(why).with_hint(what, commands));
        }
        Ok(())
    }

    /// Compares the hosts that know the run with the number that it has begun on. Without an index,
    /// only that tells whether a host is one of the run that has lost its journal.
    fn check_count(&self, ready: &[ReadyHost], absent: &mut Absent) -> Result<(), Abort> {
        let begun = ready.iter().filter_map(|host| host.part_of.as_ref());
        let begun = begun.map(|part_of| part_of.hosts).max().unwrap_or(0);
        let missing = begun.saturating_sub(ready.len());
        let unaware = absent.without_run();
        if missing > 0 && !unaware.is_empty() {
            let why = format!(
                "run {} has begun on {}, and {} of those that were asked {} it; these know nothing \
                 of it: {}",
                self.run.id,
                screen::counted(begun, "host"),
                ready.len(),
                if ready.len() == 1 { "knows" } else { "know" },
                names::list(&unaware, ", ", names::MOST)
            );
            return Err(self.without(refused(why), &unaware, ready.len() + unaware.len()));
        }
        absent.further = missing.saturating_sub(absent.unreached_count());
        Ok(())
    }

    /// A host continues a run that it has open, and reverts one that is over there. Both at once
    /// would install two configs.
    fn check_direction(&self, ready: &[ReadyHost]) -> Result<(), Abort> {
        let of = |back: bool| {
            let hosts = ready.iter().filter(move |host| host.back == back);
            names::list(hosts.map(|host| host.run.name()), ", ", names::MOST)
        };
        let (back, forward) = (of(true), of(false));
        if back.is_empty() || forward.is_empty() {
            return Ok(());
        }
        let why = format!(
            "run {} is not at the same point on its hosts: this would install the old config on \
             {back}, and the new one on {forward}",
            self.run.id
        );
        let what = "nothing was touched; what the run did, and how to bring it to its end:";
        let commands = vec![self.history(), self.command("resume")];
        Err(refused(why).with_hint(what, commands))
    }

    /// Returns the hosts that refuse to go on, before they decide the end of the command.
    pub(super) fn refusing(surveyed: &[Result<ReadyHost, Box<UnreadyHost>>]) -> Vec<HostName> {
        let unready = surveyed.iter().filter_map(|host| host.as_ref().err());
        let refused = unready.filter(|host| host.abort.verdict == Verdict::Refused);
        refused.map(|host| host.name.clone()).collect()
    }

    /// Adds to the refusal of some of `all` hosts the commands that go on all the same.
    pub(super) fn explain(&self, abort: Abort, refusing: &[HostName], all: usize) -> Abort {
        if abort.by_validation && self.verb == Verb::Revert {
            let what = "nothing was touched; to restore the old config without validation:";
            let command = format!("{} --validate=off", self.command("revert"));
            return abort.with_hint(what, vec![command]);
        }
        if let Some(later) = &abort.goes_first {
            let command = |verb| format!("hello {verb} {later}{}", self.arguments);
            let commands = ["resume", "revert"].map(command).to_vec();
            return abort.with_hint("nothing was touched; that run goes first:", commands);
        }
        if abort.verdict != Verdict::Refused || abort.hint.is_some() || !abort.instances.is_empty()
        {
            return abort;
        }
        self.without(abort, refusing, all)
    }

    /// Adds the command that excludes hosts, if others of `all` are left then, and the one that
    /// reverts everywhere.
    fn without(&self, abort: Abort, hosts: &[HostName], all: usize) -> Abort {
        if hosts.len() >= all {
            return match self.verb {
                Verb::Revert => abort.with_hint(
                    "nothing was touched; what the run did:",
                    vec![self.history()],
                ),
                _ => abort.with_hint(
                    "nothing was touched; what the run did, and how to restore the config from \
                     before it:",
                    vec![self.history(), self.command("revert")],
                ),
            };
        }
        let except: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        let verb = match self.verb {
            Verb::Revert => "revert",
            _ => "resume",
        };
        let command = self.command(verb);
        let without = format!("{command} --except {}", screen::quote(except.join(",")));
        if self.verb == Verb::Revert {
            let what = "nothing was touched; what the run did, and the same without these hosts \
                        (8 at best):";
            return abort.with_hint(what, vec![self.history(), without]);
        }
        let what = "nothing was touched; what the run did, how to restore the config from before \
                    it, and the same without these hosts (8 at best):";
        let commands = vec![self.history(), self.command("revert"), without];
        abort.with_hint(what, commands)
    }

    /// Returns the next step after a run whose verdict would be better with every host of the
    /// earlier one.
    pub(super) fn next(&self, id: &str, verdict: Verdict, back: bool, absent: &Absent) -> Hint {
        let missing = absent.missing_text();
        let config = if back { "old" } else { "new" };
        let run = &self.run.id;
        if !absent.knows_not_all() {
            return self.next_without_missing(absent.not_begun(), config);
        }
        let (what, verb) = match verdict {
            Verdict::Mixed => (
                format!(
                    "the hosts of this command are proven on the old config, and what run {run} \
                     left on others is not known: {missing}; what happened, and then to restore \
                     the old config everywhere:"
                ),
                "revert",
            ),
            _ => (
                format!(
                    "every instance of the hosts that were reached is proven on the {config} \
                     config, and what others run is not known: {missing}; what happened, and then \
                     the same once they can be reached:"
                ),
                match self.verb {
                    Verb::Revert => "revert",
                    _ => "resume",
                },
            ),
        };
        let look = if id.is_empty() {
            self.history()
        } else {
            format!("hello history {id}{}", self.state_args)
        };
        Hint {
            what,
            commands: vec![look, self.command(verb)],
        }
    }

    /// Returns the next step where every host is accounted for, and the run never began on these.
    fn next_without_missing(&self, hosts: &[HostName], config: &str) -> Hint {
        let names = names::list(hosts, ", ", names::MOST);
        let run = &self.run.id;
        let on: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        let on = screen::quote(on.join(","));
        Hint {
            what: format!(
                "every instance of the other hosts is proven on the {config} config, and run {run} \
                 never began on {names} and left them as they were; what happened, and what they \
                 run now:"
            ),
            commands: vec![
                self.history(),
                format!("hello status --on {on}{}", self.arguments),
            ],
        }
    }

    fn history(&self) -> String {
        format!("hello history {}{}", self.run.id, self.state_args)
    }

    fn command(&self, verb: &str) -> String {
        format!("hello {verb} {}{}", self.run.id, self.arguments)
    }
}

/// A run over hosts that a run of this host alone continues.
#[derive(Debug, Clone)]
pub(crate) struct AloneIn {
    /// The earlier run.
    pub(crate) run: String,
    pub(crate) part_of: PartOf,
}

impl AloneIn {
    /// Returns the run over several hosts that a run continues on this one.
    pub(super) fn of(run: Option<&String>, part_of: Option<&PartOf>) -> Option<Self> {
        let part_of = part_of.filter(|part_of| part_of.hosts > 1)?.clone();
        let run = run?.clone();
        Some(Self { run, part_of })
    }

    /// Returns the verdict of this host alone: the others are not looked at.
    pub(super) fn worsen(verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Converged | Verdict::Unproven => Verdict::Partial,
            verdict => verdict,
        }
    }

    /// Adds to a reason that other hosts are no part of the run.
    pub(super) fn with_reason(&self, reason: &str) -> String {
        let others = screen::counted(self.part_of.hosts.saturating_sub(1), "other host");
        format!(
            "{reason}; run {} has {others}, and what they run is not known",
            self.run
        )
    }

    /// Returns the next step: the same on every host.
    pub(super) fn next(&self, id: &str, state_args: &str) -> Hint {
        let coordinator = self.part_of.coordinator.as_ref();
        let on = coordinator.map_or_else(String::new, |host| format!(" (`{host}`)"));
        Hint {
            what: format!(
                "every instance of this host is proven on the old config; what happened, and then, \
                 where the index of run {}{on} is, to restore the old config everywhere:",
                self.run
            ),
            commands: vec![
                format!("hello history {id}{state_args}"),
                format!("hello revert {}", self.run),
            ],
        }
    }
}

fn refused(why: String) -> Abort {
    Abort::new(Verdict::Refused, why)
}
