//! The journal of a run, as it stands in the state folder.

use std::path::Path;

use serde_json::Value;

pub(crate) struct Journal {
    pub(crate) events: Vec<Value>,
}

impl Journal {
    pub(crate) fn read(run: &Path) -> Self {
        let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        Self {
            events: text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        }
    }

    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |e| e["event"] == name)
    }

    pub(crate) fn finished(&self) -> Option<&Value> {
        self.named("finished").last()
    }

    /// The time at which the last check of the instances began; the verdict rests on it. A journal
    /// on a full disk has no such time. Each claim is then as old as its own event.
    pub(crate) fn final_check(&self) -> Option<f64> {
        let look = self
            .named("final_check")
            .last()
            .or_else(|| self.named("instance").next());
        look.and_then(time_of)
    }

    /// Whether the run has installed anything at this path.
    pub(crate) fn installed(&self, path: &str) -> bool {
        self.named("installed").any(|e| e["path"] == path)
    }

    /// The process and its successors, in order.
    pub(crate) fn places_of(&self, pid: i32) -> Vec<i64> {
        let mut places = vec![i64::from(pid)];
        for event in self.named("instance") {
            let of = event["successor_of"].as_i64();
            places.extend(
                event["pid"]
                    .as_i64()
                    .filter(|_| of.is_some_and(|of| places.contains(&of))),
            );
        }
        places
    }

    /// The time of the first intent to signal this process.
    pub(crate) fn intended(&self, pid: i32, started: u64) -> Option<f64> {
        let has = |e: &&Value| {
            e["pids"]
                .as_array()
                .is_some_and(|pids| pids.iter().any(|p| p[0] == pid && p[1] == started))
        };
        self.named("intent").find(has).and_then(time_of)
    }
}

/// The time of an event, in seconds since 1970.
fn time_of(event: &Value) -> Option<f64> {
    let stamp: jiff::Timestamp = event["at"].as_str()?.parse().ok()?;
    Some(stamp.as_microsecond() as f64 / 1e6)
}
