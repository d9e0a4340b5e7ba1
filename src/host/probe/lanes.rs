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
        discover::newest::Newest,
        exec::placeholders::Known,
        net::{
            body::{LARGE_AT_ONCE, Large},
            http::{QUICK, STATUS, get, own},
            sockets::Listeners,
        },
        proc::snapshot::Since,
    },
    told::Told,
};

/// So many of a lane are asked at the same time.
pub(crate) const AT_ONCE: usize = 64;
/// What all those that wait for a proof share. Bounds the connections that are open at once:
/// whoever was silent once waits in the slow lane, so that stopped instances cannot starve healthy
/// ones.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) fast: Semaphore,
    pub(crate) slow: Semaphore,
    /// For those that read a large body.
    large: Arc<Semaphore>,
    /// The last look at who listens where, and when it began.
    listeners: Mutex<Option<(Instant, Arc<Listeners>)>>,
    /// The last look at who is new.
    newest: Mutex<Option<Arc<Newest>>>,
    /// Who is in the run, by pid and start time.
    known: Mutex<BTreeSet<(i32, u64)>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            fast: Semaphore::new(AT_ONCE),
            slow: Semaphore::new(AT_ONCE),
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            listeners: Mutex::default(),
            newest: Mutex::default(),
            known: Mutex::default(),
        }
    }
}

impl Lanes {
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
            let _slow = self.slow.try_acquire().ok()?;
            return Some(attempt.await);
        }
        Some(attempt.await)
    }

    /// From now on these are in the run.
    pub(crate) fn know(&self, ids: impl IntoIterator<Item = (i32, u64)>) {
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
    pub(crate) fn newest(&self, surveyed: &Since, old: Duration) -> Arc<Newest> {
        let mut last = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().filter(|newest| newest.serves(old)) {
            Some(newest) => newest.clone(),
            None => last.insert(Arc::new(Newest::look(surveyed))).clone(),
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
pub(crate) async fn told(endpoint: &str, lanes: &Lanes) -> Result<Told, String> {
    let _permit = lanes.fast.acquire().await;
    let answer = get(&own(STATUS), &Known::at(endpoint))
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
    Told::read(&answer.body).map_err(|e| format!("{endpoint} does not speak hello: {e}"))
}
