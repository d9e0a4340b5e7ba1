//! Looks at the processes, the places and the contents.

use std::{collections::BTreeSet, time::Instant};

use super::{GAP, POLL, Watcher};
use crate::{
    event::interrupted,
    runtime::off_thread,
    watch::{
        discovery::{Discovered, discover},
        inotify::Unwatched,
        lines,
        observed::Observed,
        places::Places,
        subject::Subject,
    },
};

/// The most reads in a row because the places have changed meanwhile.
const MAX_READS: usize = 5;

impl Watcher {
    /// Looks or reads again if it is time.
    pub(super) async fn catch_up(&mut self) {
        let now = Instant::now();
        let is_polled = self.unwatched.is_some() && now >= self.read + POLL;
        if now >= self.looked + self.look_interval() {
            self.look().await;
        } else if is_polled || (self.is_dirty && now >= self.read + GAP) {
            self.read().await;
        }
        let now = Instant::now();
        for group in &mut self.groups {
            group.schedule.settle(now);
        }
    }

    /// Finds the processes and the subjects of every group again, then reads the contents.
    pub(super) async fn look(&mut self) {
        self.looked = Instant::now();
        let discovered = tokio::select! {
            discovered = discover(&self.options.fleet) => discovered,
            () = interrupted(&self.interrupts, 0) => return,
        };
        match discovered {
            Ok(discovered) => self.take_discovered(discovered),
            Err(e) => {
                let text = format!("{} cannot look at the processes: {e}", lines::time());
                self.reporter.say("FAILED", &text);
            }
        }
        self.read().await;
    }

    fn take_discovered(&mut self, discovered: Vec<Discovered>) {
        let now = Instant::now();
        for (group, found) in self.groups.iter_mut().zip(discovered) {
            // A process whose config is gone for a moment must not end the watch of its place.
            if !found.is_complete {
                let old = std::mem::take(&mut group.subjects);
                group.subjects = old.into_iter().chain(found.subjects).collect();
            } else {
                group.subjects = found.subjects;
            }
            if group.instances != found.instances {
                group.instances = found.instances;
                group.schedule.instances_changed(now);
            }
        }
    }

    /// Watches every place and key, then reads every content.
    async fn read(&mut self) {
        self.is_dirty = false;
        let all: BTreeSet<Subject> = self
            .groups
            .iter()
            .flat_map(|group| &group.subjects)
            .cloned()
            .collect();
        let interrupts = self.interrupts.clone();
        let read = async {
            self.keys.keep(all.iter().filter_map(Subject::key)).await;
            let mut places = places_of(all.clone()).await;
            for _ in 0..MAX_READS {
                let unwatched = self.watches.arm(&places);
                self.set_unwatched(unwatched);
                let observed = Observed::read(all.clone(), &self.keys).await;
                // A link may have been changed before its new place was watched.
                let now = places_of(all.clone()).await;
                if now == places {
                    return observed;
                }
                places = now;
            }
            Observed::read(all, &self.keys).await
        };
        let observed = tokio::select! {
            observed = read => observed,
            () = interrupted(&interrupts, 0) => return,
        };
        self.read = Instant::now();
        for group in &mut self.groups {
            let observed = observed.of(&group.subjects);
            group.schedule.see(observed, self.read);
        }
    }

    fn set_unwatched(&mut self, unwatched: Option<Unwatched>) {
        if self.unwatched == unwatched {
            return;
        }
        self.metrics.set_polling(unwatched.is_some());
        match &unwatched {
            Some(why) => {
                let every = POLL.as_secs();
                let text = format!("{} {why}; read every {every}s instead", lines::time());
                self.reporter.say("Not watched", &text);
            }
            None => {
                let text = format!("{} every place again", lines::time());
                self.reporter.say("Watched", &text);
            }
        }
        self.unwatched = unwatched;
    }
}

/// Returns every place of these subjects.
async fn places_of(subjects: BTreeSet<Subject>) -> Places {
    off_thread(move || {
        let mut places = Places::default();
        subjects
            .iter()
            .for_each(|subject| subject.add_places(&mut places));
        places
    })
    .await
}
