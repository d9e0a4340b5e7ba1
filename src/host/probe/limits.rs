//! The state that all probes of a run share: the limits of concurrent probes, and the last reads of
//! the kernel's tables.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{
    host::{
        discover::new_processes::NewProcesses,
        exec::placeholders::Values,
        net::{
            body::{LARGE_AT_ONCE, Large},
            http::{QUICK, STATUS, get, own},
            sockets::Listeners,
        },
        probe::{
            answer::{KernelError, NoReport},
            log::Logs,
        },
        proc::snapshot::ProcessSnapshot,
    },
    self_report::SelfReport,
};

/// The most probes that run at the same time, of responsive and of unresponsive instances each.
pub(crate) const MAX_CONCURRENT_PROBES: usize = 64;
/// The longest time that the addresses of an instance are taken from an earlier read of the socket
/// tables.
pub(crate) const LISTENERS_MAX_AGE: Duration = Duration::from_millis(50);

/// The limits and caches that all probes of a run share. The limits bound the connections that are
/// open at the same time. An instance that gave no answer once waits for an `unresponsive` permit,
/// so that stopped instances cannot starve healthy ones.
#[derive(Debug)]
pub(crate) struct ProbeLimits {
    pub(crate) responsive: Semaphore,
    pub(crate) unresponsive: Semaphore,
    /// Limits the attempts that read a large body.
    large: Arc<Semaphore>,
    /// The last read of the socket tables, and when it began.
    listeners: Mutex<Option<(Instant, Arc<Listeners>)>>,
    /// The last scan for processes that are newer than the survey.
    newest: Mutex<Option<Arc<NewProcesses>>>,
    /// The logs of the instances.
    pub(crate) logs: Logs,
    /// The processes of the run, by pid and start time.
    known: Mutex<BTreeSet<(i32, u64)>>,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self {
            responsive: Semaphore::new(MAX_CONCURRENT_PROBES),
            unresponsive: Semaphore::new(MAX_CONCURRENT_PROBES),
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            listeners: Mutex::default(),
            newest: Mutex::default(),
            logs: Logs::default(),
            known: Mutex::default(),
        }
    }
}

impl ProbeLimits {
    fn known(&self) -> MutexGuard<'_, BTreeSet<(i32, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the permit of one attempt for large bodies, not yet acquired.
    pub(crate) fn large(&self) -> Large {
        Large::of(self.large.clone())
    }

    /// Awaits an attempt. It keeps its `responsive` permit for [`QUICK`] and then needs an
    /// `unresponsive` one, so that instances that do not answer delay no others. Returns `None` if
    /// there is no such permit.
    pub(crate) async fn carried<T>(
        &self,
        responsive: Option<SemaphorePermit<'_>>,
        mut attempt: impl Future<Output = T> + Unpin,
    ) -> Option<T> {
        if let Some(permit) = responsive {
            if let Ok(answer) = timeout(QUICK, &mut attempt).await {
                return Some(answer);
            }
            drop(permit);
            let _unresponsive = self.unresponsive.try_acquire().ok()?;
            return Some(attempt.await);
        }
        Some(attempt.await)
    }

    /// Adds processes to the run.
    pub(crate) fn add_known(&self, ids: impl IntoIterator<Item = (i32, u64)>) {
        self.known().extend(ids);
    }

    /// Tells whether this process is in the run.
    pub(crate) fn is_known(&self, id: (i32, u64)) -> bool {
        self.known().contains(&id)
    }

    /// Returns the pids of all processes of the run.
    pub(crate) fn pids(&self) -> BTreeSet<i32> {
        self.known().iter().map(|(pid, _)| *pid).collect()
    }

    /// Returns the processes that are newer than the survey. The scan is at most `max_age` old, or
    /// a little more if a scan takes long.
    ///
    /// # Errors
    /// Fails if the processes cannot be listed.
    pub(crate) fn newest(
        &self,
        surveyed: &ProcessSnapshot,
        max_age: Duration,
    ) -> io::Result<Arc<NewProcesses>> {
        let mut last = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().filter(|newest| newest.serves(max_age)) {
            Some(newest) => Ok(newest.clone()),
            None => Ok(last.insert(Arc::new(NewProcesses::look(surveyed)?)).clone()),
        }
    }

    /// Returns the socket tables, read at most `max_age` ago.
    ///
    /// # Errors
    /// Fails if the kernel does not answer.
    pub(crate) fn listeners(&self, max_age: Duration) -> Result<Arc<Listeners>, KernelError> {
        let mut last = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = last.as_ref().filter(|(read, _)| read.elapsed() < max_age) {
            return Ok(known.clone());
        }
        let began = Instant::now();
        let new = Arc::new(Listeners::read()?);
        *last = Some((began, new.clone()));
        Ok(new)
    }
}

/// Returns the self-report of the instance at `endpoint`.
///
/// # Errors
/// Fails if it does not answer, or does not speak this protocol.
pub(crate) async fn self_report(
    endpoint: &str,
    limits: &ProbeLimits,
) -> Result<SelfReport, NoReport> {
    let _permit = limits.responsive.acquire().await;
    let answer = get(&own(STATUS), &Values::at(endpoint))
        .await
        .map_err(|why| NoReport::NoAnswer(endpoint.into(), Box::new(why)))?;
    let endpoint = endpoint.to_owned();
    match answer.status {
        200 => SelfReport::read(&answer.body).map_err(|e| NoReport::Protocol(endpoint, e)),
        403 => Err(NoReport::Forbidden(endpoint)),
        status => Err(NoReport::Status { endpoint, status }),
    }
}
