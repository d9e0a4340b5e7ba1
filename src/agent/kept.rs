//! Queries about the runs and contents that this host keeps.

use std::path::Path;

use serde_json::{Map, Value};

use super::host_agent::{Agent, refused};
use crate::{
    forget, history,
    protocol::{Answer, FrameError, KeptItem, Refused, RefusedKind, RunQuery},
    runs::OpenRuns,
};

impl Agent {
    /// Returns the state directory of this host.
    fn state(&self) -> Result<&Path, Refused> {
        let state = self.options.state.as_deref();
        state.ok_or_else(|| {
            let why = "there is no state directory on this host";
            refused(RefusedKind::Failed, why.into())
        })
    }

    /// Returns the rows of `hello history`.
    pub(super) fn history(&self, query: &RunQuery) -> Result<Vec<Answer>, FrameError> {
        let rows = self.state().and_then(|state| {
            history::runs_of_host(state, query).map_err(|e| {
                let state = state.display();
                let why = format!("the state directory `{state}` cannot be read: {e}");
                refused(RefusedKind::Failed, why)
            })
        });
        match rows {
            Ok((rows, result)) => Answer::lines(rows, result),
            Err(Refused { kind, text }) => Ok(vec![Answer::refused(kind, text)]),
        }
    }

    /// Removes a run or a content, or finds out whether it could.
    pub(super) async fn forget(
        &self,
        item: &KeptItem,
        open: OpenRuns,
        check: bool,
    ) -> Result<Vec<Answer>, FrameError> {
        let state = match self.state() {
            Ok(state) => state,
            Err(Refused { kind, text }) => return Ok(vec![Answer::refused(kind, text)]),
        };
        let answer = forget::forget_of_host(state, item, open, check).await;
        match serde_json::to_value(&answer)? {
            Value::Object(result) => Answer::lines(Vec::new(), result),
            _ => Answer::lines(Vec::new(), Map::new()),
        }
    }
}
