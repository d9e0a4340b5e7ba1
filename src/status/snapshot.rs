//! One answer of `hello status`, before it is printed.

use serde_json::{Map, Value, json};

use super::listing::Listing;
use crate::{
    event::Verdict,
    report::{Output, refused},
    screen,
};

/// Everything that one look at the fleet shows.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Lines about skipped processes and about runs.
    pub(super) notes: Vec<String>,
    /// The instances, and the faults of groups.
    pub(super) listing: Listing,
    /// Why there is no answer.
    pub(super) failure: Option<String>,
    pub(super) json: Value,
    pub(super) exit: u8,
}

impl Snapshot {
    /// Returns the snapshot of a look that failed; `no_rows` has the keys of the answer, all empty.
    pub(super) fn failed(why: String, no_rows: Map<String, Value>) -> Self {
        let verdict = Verdict::Failed;
        Self {
            notes: Vec::new(),
            listing: Listing::empty(),
            json: refused(verdict, &why, &[], no_rows),
            failure: Some(why),
            exit: verdict.exit(),
        }
    }

    /// Prints it: the notes on stderr, and the rows or the JSON object on stdout.
    pub(super) fn show(&self, output: Output) {
        self.notes.iter().for_each(|note| screen::tell(note));
        if output == Output::Screen {
            self.listing.print();
        }
        if let Some(why) = &self.failure {
            screen::tell(&screen::failure(why));
        }
        if output != Output::Screen {
            screen::data([&self.json]);
        }
    }

    /// Returns every line for one screen.
    pub(super) fn lines(&self) -> Vec<String> {
        let notes = self.notes.iter().cloned();
        let failure = self.failure.as_deref().map(screen::failure);
        let all = notes.chain(self.listing.lines()).chain(failure);
        let lines = all.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.collect()
    }

    /// Returns the answer without what changes by itself as time goes by: ages, and how long a run
    /// is under way.
    pub(super) fn without_times(&self) -> Value {
        let mut json = self.json.clone();
        for instance in json["instances"].as_array_mut().into_iter().flatten() {
            instance["age_s"] = Value::Null;
        }
        for run in json["running"].as_array_mut().into_iter().flatten() {
            run["owner"] = Value::Null;
        }
        if json["verdict"] == json!(Verdict::Busy) {
            json["reason"] = Value::Null;
        }
        json
    }

    /// Returns the verdict as a word.
    pub(super) fn verdict(&self) -> String {
        let verdict = self.json["verdict"].as_str().unwrap_or_default();
        verdict.replace('_', " ")
    }
}
