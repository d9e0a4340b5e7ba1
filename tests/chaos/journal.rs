//! The journal of a run, as it stands in the state folder.

use std::path::Path;

use serde_json::Value;

pub(crate) struct Journal {
    pub(crate) events: Vec<Value>,
}

impl Journal {
    pub(crate) fn read(run: &Path) -> Self {
        let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        Self { events: text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect() }
    }

    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |e| e["event"] == name)
    }

    pub(crate) fn finished(&self) -> Option<&Value> {
        self.named("finished").last()
    }

    /// When the last thing before the verdict was told: what the verdict speaks of is looked at after that.
    pub(crate) fn last_look(&self) -> Option<f64> {
        let before = self.events.iter().take_while(|e| e["event"] != "finished");
        before.filter_map(at).last()
    }

    /// This process, and those that took its place one after the other.
    pub(crate) fn places_of(&self, pid: i32) -> Vec<i64> {
        let mut places = vec![i64::from(pid)];
        for event in self.named("instance") {
            let of = event["successor_of"].as_i64();
            places.extend(event["pid"].as_i64().filter(|_| of.is_some_and(|of| places.contains(&of))));
        }
        places
    }

    /// When this process was first intended to be signalled.
    pub(crate) fn intended(&self, pid: i32, started: u64) -> Option<f64> {
        let has = |e: &&Value| e["pids"].as_array().is_some_and(|pids| pids.iter().any(|p| p[0] == pid && p[1] == started));
        self.named("intent").find(has).and_then(at)
    }
}

/// The time of an event, in seconds since 1970.
fn at(event: &Value) -> Option<f64> {
    let stamp: jiff::Timestamp = event["at"].as_str()?.parse().ok()?;
    Some(stamp.as_microsecond() as f64 / 1e6)
}
