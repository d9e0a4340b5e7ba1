//! Asks an instance what it serves until the wanted config is proven, it refused, it died, or the deadline passed.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use tokio::io::unix::AsyncFd;

use crate::{
    event::{Instance, State, Trouble},
    fact::{Ask, Fact, Source},
    host::{
        answers::Answers,
        hangup::Hung,
        http::{Lanes, STATUS, get},
    },
    told::{AttemptResult, Told, X_CONFIG_SHA256, X_INSTANCE},
};

/// What an instance must prove.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// For one that speaks our protocol: what it must say of itself.
    pub(super) says: Option<Says>,
    /// Must all hold; filled in already.
    pub(super) facts: Vec<Fact>,
    /// The facts' readings from before the signal, in the same order.
    pub(super) baseline: Vec<Option<String>>,
    /// One that holds now and did not before ends the wait: it refused.
    pub(super) reject: Vec<Fact>,
    /// Readings of `reject` from before the signal, in the same order.
    pub(super) rejected: Vec<Option<String>>,
    /// How often in a row.
    pub(super) samples: u32,
}

/// What an instance that speaks our protocol must say.
#[derive(Debug, Clone)]
pub(super) struct Says {
    /// Digest that must be told on the serving path.
    pub(super) sha256: String,
    /// Whether a refusal of `sha256` ends the wait.
    pub(super) refusable: bool,
    /// The last attempt must be later than the one before the signal and have read `sha256`:
    /// an answer that could be from before the signal proves nothing.
    pub(super) anew: bool,
    /// The instance's attempt number before the signal.
    pub(super) seq: u64,
}

/// Ends when the process behind `pidfd` does.
async fn end_of(pidfd: &OwnedFd) {
    #[expect(deprecated, reason = "an OwnedFd keeps its descriptor open, and the replacement is unsafe to call")]
    match pidfd.try_clone().map(AsyncFd::new) {
        Ok(Ok(fd)) => drop(fd.readable().await),
        // Out of descriptors: the polls still see a silent process.
        _ => std::future::pending().await,
    }
}

/// Polls until `wanted` is proven: at once, then after 1, 2, 4 .. 100 ms. Answers the time since the signal.
///
/// # Errors
/// The trouble: it died, it refused, or an attempt that ended past the deadline proved nothing.
pub(super) async fn confirm(hung: &Hung, i: &Instance, wanted: &Wanted, limit: Duration, lanes: &Lanes) -> Result<Duration, Trouble> {
    let trouble = |kind, text: String| Trouble { kind, text };
    let polls = async {
        let (mut pause, mut silent, mut held) = (Duration::from_millis(1), false, 0);
        loop {
            // An attempt that began before the deadline may end past it; only then is the wait over.
            let late = hung.at.elapsed() >= limit;
            let lane = if silent { &lanes.slow } else { &lanes.fast };
            let said = {
                let _permit = lane.acquire().await;
                attempt(hung, i, wanted).await
            };
            let why = match said {
                Ok(()) => {
                    held += 1;
                    if held >= wanted.samples {
                        return Ok(hung.at.elapsed());
                    }
                    continue;
                }
                Err(Said::Refused(why)) => return Err(trouble(State::Rejected, why)),
                Err(Said::NotYet(why)) => why,
                Err(Said::Silent(why)) => {
                    silent = true;
                    why
                }
            };
            held = 0;
            if late {
                return Err(trouble(State::TimedOut, format!("{why} after {limit:?}")));
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    tokio::select! {
        biased;
        () = end_of(&hung.pidfd) => Err(trouble(State::Died, "the process ended".into())),
        said = polls => said,
    }
}

enum Said {
    NotYet(String),
    Silent(String),
    Refused(String),
}

async fn attempt(hung: &Hung, i: &Instance, wanted: &Wanted) -> Result<(), Said> {
    let mut not_yet = None;
    // Who speaks our protocol is asked on its serving path, whatever its facts are.
    let own = Source::Http(Ask { url: "http://{listen}/".into(), host: None, ca: None, insecure: false });
    let own = wanted.says.as_ref().filter(|_| wanted.facts.is_empty()).map(|_| &own);
    let sources = wanted.facts.iter().chain(&wanted.reject).map(|f| &f.source).chain(own);
    let answers = Answers::of(sources, i).await.map_err(Said::Silent)?;
    let reading = |fact: &Fact| answers.read(fact);
    let before = |readings: &[Option<String>], at: usize| readings.get(at).cloned().flatten();
    for (at, fact) in wanted.reject.iter().enumerate() {
        let (now, was) = (reading(fact), before(&wanted.rejected, at));
        let holds = |now: &Option<String>| now.as_deref().is_some_and(|now| fact.holds(now, was.as_deref(), hung.when));
        if holds(&now) && (fact.compares() || !holds(&was)) {
            return Err(Said::Refused(format!("{} says that it kept the old config", fact.source.describe(&i.endpoint))));
        }
    }
    for (at, fact) in wanted.facts.iter().enumerate() {
        if !reading(fact).is_some_and(|now| fact.holds(&now, before(&wanted.baseline, at).as_deref(), hung.when)) {
            not_yet.get_or_insert_with(|| format!("{} does not say what it should", fact.source.describe(&i.endpoint)));
        }
    }
    let Some(says) = &wanted.says else { return not_yet.map_or(Ok(()), |why| Err(Said::NotYet(why))) };
    let me = format!("{}:{}", hung.pid, hung.started);
    for answer in answers.own() {
        if answer.header(X_INSTANCE) != Some(&me) {
            return Err(Said::NotYet(format!("it is answered by {}", answer.header(X_INSTANCE).unwrap_or("somebody who does not say who it is"))));
        }
        if answer.header(X_CONFIG_SHA256) != Some(&says.sha256) {
            not_yet.get_or_insert_with(|| "serves another config".into());
        }
    }
    if not_yet.is_none() && !says.anew {
        return Ok(());
    }
    let answer = get(&i.endpoint, STATUS).await.map_err(Said::Silent)?;
    let told: Told = serde_json::from_slice(&answer.body).map_err(|e| Said::NotYet(format!("{STATUS}: {e}")))?;
    if (told.instance.pid, told.instance.started) != (hung.pid, hung.started) {
        return Err(Said::NotYet(format!("it is answered by pid {}", told.instance.pid)));
    }
    let last = told.last_attempt;
    let looked = last.seq > says.seq && last.sha256.as_deref() == Some(&says.sha256);
    if not_yet.is_none() && looked {
        return Ok(());
    }
    let kept = matches!(last.result, AttemptResult::Rejected | AttemptResult::RestartRequired | AttemptResult::IoError);
    if says.refusable && last.seq > says.seq && kept && (looked || last.sha256.is_none()) {
        return Err(Said::Refused(last.error.unwrap_or_else(|| "it says that it kept the old config".into())));
    }
    // What it serves is not what is wanted, or its last look was not at what is wanted.
    let still = format!("still at generation {}, attempt {}", told.effective.generation, last.seq);
    Err(Said::NotYet(not_yet.filter(|_| told.effective.sha256 == says.sha256).unwrap_or(still)))
}

/// Spreads the polls of many instances: between half the pause and all of it.
fn jittered(pause: Duration) -> Duration {
    let noise = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), Instant::now());
    pause / 2 + pause.mul_f64((noise % 1024) as f64 / 2048.0)
}
