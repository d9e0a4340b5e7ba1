//! One attempt to see the expected config: a probe of every source, and what the answers show.

use std::time::Duration;

use crate::{
    assertion::{Assertion, Source, entries, entry_of, old_workers},
    host::{
        exec::placeholders::Values,
        net::http::{STATUS, get, own},
        probe::{
            answer::KernelError,
            endpoint::{WHETHER_OLD_WORKER, old_worker_text},
            expected::{Expected, Scope, SelfReportExpectation},
            limits::ProbeLimits,
            results::ProbeResults,
            samples::Samples,
            workers::{apart, draining},
        },
        proc::{inside, pidfd::SignalledProcess, tree::Child},
    },
    self_report::{
        Attempt as ReportedAttempt, AttemptResult, SelfReport, X_CONFIG_FILE_SHA256,
        X_CONFIG_SHA256, X_INSTANCE, is_instance,
    },
    step::PlannedInstance,
};

/// Why an attempt proved nothing.
pub(super) enum AttemptError {
    /// The answers do not show the expected config.
    NotYet(String),
    /// An old worker still accepts connections.
    OldWorkerListening(String),
    /// A source did not answer.
    Silent(String),
    /// The instance kept the old config.
    Refused(String),
}

impl AttemptError {
    /// Records in `samples` an answer of another config. If an answer of the expected config came
    /// before it, two processes may answer in turn.
    fn record_in(&self, samples: &mut Samples) {
        if matches!(self, Self::NotYet(_)) {
            samples.does_not_hold();
        }
    }
}

/// The readings of the assertions of `confirm`.
#[derive(Default)]
struct Shown {
    /// Why the first assertion that does not hold does not.
    not_yet: Option<String>,
    /// Old workers that will end later.
    draining: Vec<Child>,
    /// Which old worker still accepts connections.
    old_worker: Option<String>,
    /// The assertions that hold, by their index.
    held: Vec<usize>,
}

/// One source that a sample probes again.
#[derive(Clone, Copy)]
struct Sample<'a> {
    source: &'a Source,
    /// The assertions that held when every source was probed. Of an entry of `any`, each of these
    /// must go on to hold: an alternative that another process answers proves nothing.
    held: &'a [usize],
}

/// The probes of one instance after its signal.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) signalled: &'a SignalledProcess,
    pub(super) member: &'a PlannedInstance,
    pub(super) expected: &'a Expected,
    pub(super) limits: &'a ProbeLimits,
}

impl Attempt<'_> {
    /// Probes every source once. If everything holds, probes each one in a row of samples. Returns
    /// the old workers that will end later. `late` tells that the deadline has passed.
    pub(super) async fn sampled(
        self,
        samples: &mut Samples,
        late: bool,
    ) -> Result<Vec<Child>, AttemptError> {
        let (mut draining, held) = self
            .once(None)
            .await
            .inspect_err(|error| error.record_in(samples))?;
        samples.holds();
        if self.expected.until.waits(late) {
            return Ok(draining);
        }
        let serving = Source::Http(own("/"));
        for source in samples.questions(self.expected.sources(&serving)) {
            let held = &held;
            let (sampled, _) = self
                .once(Some(Sample { source, held }))
                .await
                .inspect_err(|error| error.record_in(samples))?;
            if *source == Source::Workers {
                draining = sampled;
            }
        }
        Ok(draining)
    }

    /// Probes every source, or `only` one, once. Returns the old workers that will end later, and
    /// the assertions that hold.
    async fn once(
        self,
        only: Option<Sample<'_>>,
    ) -> Result<(Vec<Child>, Vec<usize>), AttemptError> {
        let Self {
            signalled,
            member,
            expected,
            limits,
        } = self;
        let endpoint = &member.instance.endpoint;
        if endpoint.is_empty() && member.group.needs_endpoint() {
            return Err(AttemptError::Silent(
                "it listens on no address that could be probed".into(),
            ));
        }
        let left = member.timeout.saturating_sub(signalled.at.elapsed());
        let serving = Source::Http(own("/"));
        let sources = expected
            .sources(&serving)
            .filter(|source| is_covered(source, only));
        let mut results = ProbeResults::within(left, sources, member, limits).await;
        self.check_rejections(&results, only)?;
        if let Some((_, error)) = results.take_error() {
            return Err(AttemptError::Silent(error.refusal.to_string()));
        }
        let Shown {
            mut not_yet,
            draining,
            old_worker,
            held,
        } = self
            .read_assertions(&results, only)
            .map_err(|why| AttemptError::Silent(why.cannot_tell(WHETHER_OLD_WORKER).text))?;
        if let Some(why) = old_worker {
            return Err(AttemptError::OldWorkerListening(why));
        }
        let Some(report) = &expected.self_report else {
            return not_yet.map_or(Ok((draining, held)), |why| Err(AttemptError::NotYet(why)));
        };
        self.check_own_answers(&results, report, &mut not_yet)?;
        if not_yet.is_none() && (!report.require_new_attempt || only.is_some()) {
            return Ok((draining, held));
        }
        self.check_self_report(report, not_yet)
            .await
            .map(|()| (draining, held))
    }

    /// Fails if an assertion of `reject` holds now and did not before the signal.
    fn check_rejections(
        self,
        results: &ProbeResults<'_>,
        only: Option<Sample<'_>>,
    ) -> Result<(), AttemptError> {
        let reject = &self.expected.reject;
        let holds = |index: usize, now: Option<&str>| {
            let before = reading(&self.member.rejected, index);
            now.is_some_and(|now| reject[index].holds(now, before, self.signalled.when))
        };
        // Of an entry of `any`, another alternative may have held before the signal.
        let held_before = |index: usize| {
            entry_of(reject, index).any(|index| holds(index, reading(&self.member.rejected, index)))
        };
        let is_covered = |(_, assertion): &(usize, &Assertion)| is_covered(&assertion.source, only);
        for (index, assertion) in reject.iter().enumerate().filter(is_covered) {
            let now = results.read(assertion);
            if holds(index, now.as_deref()) && (assertion.needs_signal() || !held_before(index)) {
                let endpoint = &self.member.instance.endpoint;
                return Err(AttemptError::Refused(results.kept_old(assertion, endpoint)));
            }
        }
        Ok(())
    }

    /// Reads every assertion of `confirm`.
    ///
    /// # Errors
    /// Fails if the kernel does not tell whether an old worker still accepts connections.
    fn read_assertions(
        self,
        results: &ProbeResults<'_>,
        only: Option<Sample<'_>>,
    ) -> Result<Shown, KernelError> {
        let mut shown = Shown::default();
        let confirm = &self.expected.confirm;
        for entry in entries(confirm) {
            let mut why_not = Vec::new();
            let mut has_held = false;
            for index in entry.filter(|index| is_sampled(confirm, *index, only)) {
                match self.read_assertion(results, index, &mut shown)? {
                    None => has_held = true,
                    Some(why) => why_not.push(why),
                }
            }
            // A sample is of the alternatives that held, and each of them must hold again.
            let is_met = why_not.is_empty() || (has_held && only.is_none());
            if !is_met {
                let why = || why_not.join(", and ");
                shown.not_yet.get_or_insert_with(why);
            }
        }
        Ok(shown)
    }

    /// Reads the assertion `index` of `confirm`. Returns why it does not hold; none if it does.
    fn read_assertion(
        self,
        results: &ProbeResults<'_>,
        index: usize,
        shown: &mut Shown,
    ) -> Result<Option<String>, KernelError> {
        let assertion = &self.expected.confirm[index];
        let now = results.read(assertion);
        let before = reading(&self.member.baseline, index);
        if let Some(now) = &now {
            self.expected.until.record_reading(index, now);
        }
        let holds = now
            .as_deref()
            .is_some_and(|now| assertion.holds(now, before, self.signalled.when));
        let why = (!holds).then(|| results.why_not(assertion, &self.member.instance.endpoint));
        if let (Source::Workers, Some(before), Some(now)) = (&assertion.source, before, now) {
            shown.draining = draining(before, &now);
            shown.old_worker = self.old_worker(before, &now)?;
        }
        if holds {
            shown.held.push(index);
        }
        Ok(why)
    }

    /// Returns the message about an old worker that still accepts connections, by the readings of
    /// the workers `before` the signal and `now`.
    fn old_worker(self, before: &str, now: &str) -> Result<Option<String>, KernelError> {
        let old = old_workers(before, now);
        if let Some(pid) = old.first().and_then(|name| name.split(':').next()) {
            return Ok(Some(old_worker_text(pid)));
        }
        let alone_on_its_socket = apart(before, now, &*self.limits.listeners(Duration::ZERO)?)?;
        Ok(alone_on_its_socket.map(old_worker_text))
    }

    /// Checks that every answer of the instance's own endpoint names this process. Sets `not_yet`
    /// if one names another config.
    fn check_own_answers(
        self,
        results: &ProbeResults<'_>,
        report: &SelfReportExpectation,
        not_yet: &mut Option<String>,
    ) -> Result<(), AttemptError> {
        let is_it = |name: &str| inside::parsed(name).is_some_and(|id| self.is_its_name(id));
        for answer in results.own_answers() {
            if !answer.header(X_INSTANCE).is_some_and(is_it) {
                let named = answer.header(X_INSTANCE).filter(|name| is_instance(name));
                return Err(AttemptError::NotYet(format!(
                    "it is answered by {}",
                    named.unwrap_or("a process that does not say which one it is")
                )));
            }
            let whole = answer.header(X_CONFIG_SHA256);
            let served = match report.scope {
                Scope::File => answer.header(X_CONFIG_FILE_SHA256).or(whole),
                Scope::Whole => whole,
            };
            if served != Some(&report.sha256) {
                not_yet.get_or_insert_with(|| "serves another config".into());
            }
        }
        Ok(())
    }

    /// Checks the self-report: the last attempt must be new and have read the expected config.
    /// `not_yet` is why the answers do not show that config.
    async fn check_self_report(
        self,
        expected: &SelfReportExpectation,
        not_yet: Option<String>,
    ) -> Result<(), AttemptError> {
        let answer = get(&own(STATUS), &Values::at(&self.member.instance.endpoint))
            .await
            .map_err(|e| AttemptError::Silent(e.to_string()))?;
        let report = SelfReport::read(&answer.body)
            .map_err(|e| AttemptError::NotYet(format!("{STATUS}: {e}")))?;
        if !self.is_its_name((report.instance.pid, report.instance.started)) {
            return Err(AttemptError::NotYet(format!(
                "it is answered by pid {}",
                report.instance.pid
            )));
        }
        let last = report.last_attempt;
        let is_new = self.is_new(&last, expected);
        let (read, serves) = match expected.scope {
            Scope::File => (last.of_file(), report.effective.of_file()),
            Scope::Whole => (last.sha256.as_deref(), report.effective.sha256.as_str()),
        };
        let has_read = is_new && read == Some(&expected.sha256);
        let kept_old = matches!(
            last.result,
            AttemptResult::Rejected | AttemptResult::RestartRequired | AttemptResult::IoError
        );
        // The file that it serves was served before as well: it kept that for the sake of a key.
        let refused_key = kept_old && expected.require_new_attempt && expected.rejection_is_final;
        if not_yet.is_none() && has_read && !refused_key {
            return Ok(());
        }
        if expected.rejection_is_final && is_new && kept_old && (has_read || last.sha256.is_none())
        {
            let why = last.error.clone();
            return Err(AttemptError::Refused(why.unwrap_or_else(|| {
                "it reports that it kept the old config".into()
            })));
        }
        // It serves another config, or its last attempt read another one.
        let still = format!(
            "still at generation {}, attempt {}",
            report.effective.generation, last.seq
        );
        Err(AttemptError::NotYet(
            not_yet
                .filter(|_| serves == expected.sha256)
                .unwrap_or(still),
        ))
    }

    /// Tells whether an attempt is later than the signal. The count of attempts before the signal
    /// is not known of an unresponsive instance, so the time of the attempt decides.
    fn is_new(self, last: &ReportedAttempt, expected: &SelfReportExpectation) -> bool {
        if self.member.unresponsive {
            last.at >= self.signalled.when
        } else {
            last.seq > expected.seq
        }
    }

    /// Tells whether the process calls itself `name` (pid and start time) in its own namespaces.
    fn is_its_name(self, name: (i32, u64)) -> bool {
        inside::is_its_name(self.signalled.pid, self.signalled.started, name)
    }
}

/// Tells whether an attempt at every source, or at `only` one, covers `source`.
fn is_covered(source: &Source, only: Option<Sample<'_>>) -> bool {
    only.is_none_or(|only| only.source == source)
}

/// Tells whether an attempt judges the assertion `index`.
fn is_sampled(assertions: &[Assertion], index: usize, only: Option<Sample<'_>>) -> bool {
    let assertion = &assertions[index];
    is_covered(&assertion.source, only)
        && only.is_none_or(|only| assertion.any.is_none() || only.held.contains(&index))
}

/// Returns the reading of the assertion `index` from before the signal.
fn reading(readings: &[Option<String>], index: usize) -> Option<&str> {
    readings.get(index).and_then(Option::as_deref)
}
