//! The groups of the fleet, and SIGHUP, which reads it again.

use std::{collections::BTreeSet, time::Instant};

use sd_notify::NotifyState;

use super::{Watched, Watcher};
use crate::{
    fleet::{Fleet, Group},
    names,
    screen::counted,
    serve::notify,
    watch::{lines, schedule::Schedule, subject::Subject},
};

impl Watcher {
    /// Makes the watched groups those of the fleet. A group that stays keeps its state.
    pub(super) fn take_groups(&mut self) {
        let mut old = std::mem::take(&mut self.groups);
        for group in &self.options.fleet.groups {
            let known = old.iter().position(|watched| watched.name == group.name);
            self.groups.push(match known {
                Some(index) => old.swap_remove(index),
                None => Watched {
                    name: group.name.clone(),
                    schedule: Schedule::new(self.options.debounce),
                    subjects: BTreeSet::new(),
                    instances: BTreeSet::new(),
                },
            });
        }
        for gone in old {
            self.metrics.forget(&gone.name);
        }
    }

    pub(super) fn say_watched(&self) {
        if self.options.shared.quiet {
            return;
        }
        for group in &self.groups {
            let subjects: Vec<String> = group.subjects.iter().map(Subject::name).collect();
            let subjects = names::list(subjects, ", ", names::MOST);
            let count = counted(group.instances.len(), "instance");
            let text = format!("{}: {count}; {subjects}", group.name);
            self.reporter.say("Watching", text.trim_end_matches("; "));
        }
    }

    /// Returns the groups that must be in one run with a group: those that read the same content,
    /// and those that come before or after it, directly or not. All others have runs of their own,
    /// so that a group that fails holds up no other.
    pub(super) fn together_with(&self, name: &str) -> BTreeSet<String> {
        let all: Vec<(&Group, &Watched)> =
            self.options.fleet.groups.iter().zip(&self.groups).collect();
        let depends = |(a, watched_a): &(&Group, &Watched), (b, watched_b): &(&Group, &Watched)| {
            a.after.contains(&b.name)
                || b.after.contains(&a.name)
                || !watched_a.subjects.is_disjoint(&watched_b.subjects)
        };
        let mut together = BTreeSet::from([name.to_owned()]);
        let mut pending: Vec<_> = all.iter().filter(|(group, _)| group.name == name).collect();
        while let Some(next) = pending.pop() {
            for other in all.iter().filter(|other| depends(next, other)) {
                if together.insert(other.0.name.clone()) {
                    pending.push(other);
                }
            }
        }
        together
    }

    /// Reads the fleet again. One that cannot be used changes nothing.
    pub(super) async fn reload(&mut self) {
        if let Ok(reloading) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, reloading]);
        }
        match (self.options.load)() {
            Ok(fleet) => {
                self.take_fleet(fleet);
                self.look().await;
                self.say_watched();
                notify(&[NotifyState::Ready, NotifyState::Status("watching")]);
            }
            Err(why) => {
                let text = format!("{} the fleet stays as it was: {why}", lines::time());
                self.reporter.say("FAILED", &text);
                let status = format!("the fleet was not read again: {why}");
                notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
            }
        }
    }

    fn take_fleet(&mut self, fleet: Fleet) {
        let old = std::mem::replace(&mut self.options.fleet, fleet);
        self.take_groups();
        let now = Instant::now();
        for (group, watched) in self.options.fleet.groups.iter().zip(&mut self.groups) {
            let is_same = old.groups.iter().any(|old| old == group);
            if !is_same || watched.schedule.has_failed() {
                watched.schedule.demand(now);
            }
        }
    }
}
