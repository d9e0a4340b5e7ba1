//! The frames of a run: numbered requests, their answers, and what comes meanwhile.

use serde::{Deserialize, Serialize};

use super::{
    answer::Refused,
    order::{PartOf, SurveyOrder},
    session::{Finish, HostPlan, HostRows, Numbers, SessionAnswer, SessionRequest},
};
use crate::{
    event::{Abort, Event, Outcome},
    fleet::Unproven,
};

/// The bytes of one line of a long answer, before its text is escaped once more.
const MAX_PIECE: usize = 256 << 10;

/// A numbered request of a run. The next one comes after the answer to this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunFrame {
    /// The id of the run.
    pub(crate) run: String,
    /// Its number, from 1.
    pub(crate) n: u64,
    /// The fencing token of the host; none in a survey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<u64>,
    /// Events of the coordinator since the last request, for the host's journal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<Event>,
    /// The request.
    #[serde(flatten)]
    pub(crate) verb: RunVerb,
}

/// A request of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "q", rename_all = "snake_case")]
pub(crate) enum RunVerb {
    /// Find the instances, lock and read the targets, stage and validate the candidates.
    Survey(Box<SurveyOrder>),
    /// Accept the waves of the instances, and begin the journal.
    Plan {
        /// The numbers of the instances of each wave.
        waves: Vec<(u16, Numbers)>,
        /// The run over all hosts, for the host's journal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part_of: Option<PartOf>,
        /// The seconds of the commit-confirmed timer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_within_s: Option<u64>,
    },
    /// Look once more at instances that need nothing, and end.
    Unchanged,
    /// A request of the engine.
    Do { request: SessionRequest },
    /// Remove what is staged, and return the rows of the report.
    CloseUp,
    /// Record the end.
    Finish(Finish),
}

/// The answer to a request of a run that was carried out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunAnswer {
    /// To a survey. A dry run has its rows as well.
    Plan {
        plan: HostPlan,
        #[serde(default)]
        rows: Option<HostRows>,
        /// Instances of the earlier run that have gone, for the reason of a good end.
        #[serde(default)]
        unreplaced: Option<String>,
        /// True if the config that is installed is an old one.
        back: bool,
        /// True if there is neither bake nor gate, and no rollback.
        now: bool,
        /// True if the earlier run has reached its goal here, so that it is only looked at again.
        #[serde(default)]
        is_over: bool,
        /// The run over hosts that the earlier run is a part of.
        #[serde(default)]
        part_of: Option<PartOf>,
        /// The seconds of the commit-confirmed timer that the run takes over from the earlier one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        armed_s: Option<u64>,
        /// The instances that the earlier run has signalled, and proven on the old config
        /// afterwards.
        #[serde(default)]
        reverted: Numbers,
    },
    /// The run ends before anything is touched.
    Abort(Abort),
    /// To a plan.
    Accepted,
    /// To [`RunVerb::Unchanged`].
    Unchanged {
        rows: HostRows,
        ends: Vec<(Outcome, Unproven)>,
    },
    /// To a request of the engine.
    Done(SessionAnswer),
    /// To [`RunVerb::CloseUp`].
    Rows(HostRows),
    /// To a finish.
    Finished {
        /// False if the journal of the host did not take the end: the run is open there.
        is_recorded: bool,
    },
}

/// One line of an answer: the answer, why there is none, or a piece of its text.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunLine {
    /// The number of the request.
    pub(crate) a: u64,
    /// The fencing token of the host.
    #[serde(default)]
    pub(crate) epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ok: Option<RunAnswer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no: Option<Refused>,
    /// A piece of the text of an answer that is too long for one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) piece: Option<String>,
    /// The place of the piece in the text, in bytes.
    #[serde(default)]
    pub(crate) at: usize,
    /// True if the answer goes on in the next line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) more: bool,
}

impl RunLine {
    /// Returns the lines of an answer.
    ///
    /// # Errors
    /// Fails if the answer cannot be written as JSON.
    pub(crate) fn of(a: u64, epoch: u64, answer: &RunAnswer) -> serde_json::Result<Vec<String>> {
        let text = serde_json::to_string(answer)?;
        if text.len() <= MAX_PIECE {
            return Ok(vec![format!(
                "{{\"a\":{a},\"epoch\":{epoch},\"ok\":{text}}}"
            )]);
        }
        let mut lines = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = rest.floor_char_boundary(MAX_PIECE);
            let (piece, after) = rest.split_at(end);
            lines.push(serde_json::to_string(&Self {
                a,
                epoch,
                piece: Some(piece.to_owned()),
                at: text.len() - rest.len(),
                more: !after.is_empty(),
                ..Self::default()
            })?);
            rest = after;
        }
        Ok(lines)
    }

    /// Returns the line of a refusal.
    pub(crate) fn refused(a: u64, epoch: u64, no: Refused) -> Self {
        Self {
            a,
            epoch,
            no: Some(no),
            ..Self::default()
        }
    }
}

/// Events of a run, while a request is carried out. They may be lost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The number of the request.
    pub(crate) ev: u64,
    pub(crate) events: Vec<Event>,
}

/// The candidates that a host lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    /// The number of the survey.
    pub(crate) need: u64,
    /// Their digests.
    pub(crate) bytes: Vec<String>,
}
