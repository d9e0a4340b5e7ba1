//! What all instances that are asked share: places for questions, and the last looks at the
//! kernel's tables.

use std::{
    collections::BTreeSet,
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
        proc::snapshot::ProcessSnapshot,
    },
    self_report::SelfReport,
};

/// So many of a lane are asked at the same time.
pub(crate) const AT_ONCE: usize = 64;
/// What all those that wait for a proof share. Bounds the connections that are open at once:
/// whoever was silent once waits in the slow lane, so that stopped instances cannot starve healthy
/// ones.
#[derive(Debug)]
pub(crate) struct ProbeLimits {
    pub(crate) responsive: Semaphore,
    pub(crate) unresponsive: Semaphore,
    /// For those that read a large body.
    large: Arc<Semaphore>,
    /// The last look at who listens where, and when it began.
    listeners: Mutex<Option<(Instant, Arc<Listeners>)>>,
    /// The last look at who is new.
    newest: Mutex<Option<Arc<NewProcesses>>>,
    /// Who is in the run, by pid and start time.
    known: Mutex<BTreeSet<(i32, u64)>>,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self {
            responsive: Semaphore::new(AT_ONCE),
            unresponsive: Semaphore::new(AT_ONCE),
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            listeners: Mutex::default(),
            newest: Mutex::default(),
            known: Mutex::default(),
        }
    }
}

impl ProbeLimits {
    fn all(&self) -> MutexGuard<'_, BTreeSet<(i32, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The permit of one attempt for large bodies.
    pub(crate) fn large(&self) -> Large {
        Large::of(self.large.clone())
    }

    /// Awaits an attempt. It keeps its place of the fast lane for [`QUICK`] and then needs one of
    /// the slow lane, so that instances that do not answer hold up no other. None where there is
    /// no such place.
    pub(crate) async fn carried<T>(
        &self,
        fast: Option<SemaphorePermit<'_>>,
        mut attempt: impl Future<Output = T> + Unpin,
    ) -> Option<T> {
        if let Some(permit) = fast {
            if let Ok(answer) = timeout(QUICK, &mut attempt).await {
                return Some(answer);
            }
            drop(permit);
            let _slow = self.unresponsive.try_acquire().ok()?;
            return Some(attempt.await);
        }
        Some(attempt.await)
    }

    /// From now on these are in the run.
    pub(crate) fn add_known(&self, ids: impl IntoIterator<Item = (i32, u64)>) {
        self.all().extend(ids);
    }

    /// Whether this process is in the run.
    pub(crate) fn is_known(&self, id: (i32, u64)) -> bool {
        self.all().contains(&id)
    }

    /// The pids of all who are in the run.
    pub(crate) fn pids(&self) -> BTreeSet<i32> {
        self.all().iter().map(|(pid, _)| *pid).collect()
    }

    /// Who came after the survey: at most `old` ago, or a little more where such a look takes long.
    pub(crate) fn newest(&self, surveyed: &ProcessSnapshot, old: Duration) -> Arc<NewProcesses> {
        let mut last = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().filter(|newest| newest.serves(old)) {
            Some(newest) => newest.clone(),
            None => last.insert(Arc::new(NewProcesses::look(surveyed))).clone(),
        }
    }

    /// Who listens where: at most `old` ago.
    ///
    /// # Errors
    /// A sentence when the kernel does not tell.
    pub(crate) fn listeners(&self, old: Duration) -> Result<Arc<Listeners>, String> {
        let mut last = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = last.as_ref().filter(|(at, _)| at.elapsed() < old) {
            return Ok(known.clone());
        }
        let at = Instant::now();
        let new = Arc::new(
            Listeners::read()
                .map_err(|e| format!("the kernel does not tell who listens where: {e}"))?,
        );
        *last = Some((at, new.clone()));
        Ok(new)
    }
}

/// What the instance at `endpoint` tells of itself.
///
/// # Errors
/// A sentence: silent, or not one that speaks this protocol.
pub(crate) async fn self_report(endpoint: &str, lanes: &ProbeLimits) -> Result<SelfReport, String> {
    let _permit = lanes.responsive.acquire().await;
    let answer = get(&own(STATUS), &Values::at(endpoint))
        .await
        .map_err(|why| format!("{endpoint}: {why}"))?;
    if answer.status != 200 {
        let why = if answer.status == 403 {
            " (asked from elsewhere, or by another name than an address or `localhost`? start it \
             with `--proof any`)"
        } else {
            ""
        };
        return Err(format!(
            "{endpoint} answers {} to GET {STATUS}{why}",
            answer.status
        ));
    }
    SelfReport::read(&answer.body).map_err(|e| format!("{endpoint} does not speak hello: {e}"))
}
