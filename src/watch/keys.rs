//! The keys of stores that are watched, each by a task of its own: a store that does not answer
//! holds up nothing else.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
    time::sleep,
};

use super::{
    content::{Content, Digest},
    subject::KeySubject,
};
use crate::{
    config,
    fleet::Key,
    host::store::{self, Revision},
};

/// The longest wait for another revision. After it the key is read again, so a watch that has died
/// unnoticed costs this time at most.
const WAIT: Duration = Duration::from_secs(60);

/// The pause after the first failure of a store. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a failure.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// The last reading of a key; none before the first one.
type Reading = Rc<RefCell<Option<Digest>>>;

/// The watch of one key.
#[derive(Debug)]
struct KeyWatch {
    key: Arc<Key>,
    reading: Reading,
    task: AbortHandle,
}

/// The watches of all keys.
#[derive(Debug, Default)]
pub(super) struct KeyWatches {
    watches: BTreeMap<String, KeyWatch>,
    changed: Rc<Notify>,
}

impl KeyWatches {
    /// Watches exactly these keys, and waits until each was read once.
    pub(super) async fn keep(&mut self, keys: impl Iterator<Item = &KeySubject>) {
        let mut old = std::mem::take(&mut self.watches);
        for KeySubject(key) in keys {
            let known = old.remove(&key.url);
            let watch = match known.filter(|watch| watch.key == *key) {
                Some(same) => same,
                None => self.begin(key),
            };
            self.watches.insert(key.url.clone(), watch);
        }
        drop(old);
        while self.watches.values().any(|w| w.reading.borrow().is_none()) {
            self.changed.notified().await;
        }
    }

    fn begin(&self, key: &Arc<Key>) -> KeyWatch {
        let reading = Reading::default();
        let task = follow(key.clone(), reading.clone(), self.changed.clone());
        KeyWatch {
            key: key.clone(),
            reading,
            task: spawn_local(task).abort_handle(),
        }
    }

    /// Returns the last reading of a key.
    pub(super) fn digest(&self, key: &KeySubject) -> Option<Digest> {
        self.watches.get(&key.0.url)?.reading.borrow().clone()
    }

    /// Waits until a key was read with another result.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for KeyWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a key after each change, and at intervals. If a read is older than the change, the next
/// wait ends at once, and the key is read again.
async fn follow(key: Arc<Key>, reading: Reading, changed: Rc<Notify>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let (content, known) = read(&key).await;
        let is_answer = known.is_some();
        let digest = Digest {
            content,
            included: String::new(),
        };
        if reading.replace(Some(digest.clone())) != Some(digest) {
            changed.notify_one();
        }
        let waited = match known {
            Some(known) => store::wait(&key, known.as_ref(), WAIT).await.is_ok(),
            None => false,
        };
        if is_answer && waited {
            pause = FIRST_PAUSE;
        } else {
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            pause = LAST_PAUSE.min(pause * 2);
        }
    }
}

/// Reads a key. Returns its content and, if the store has answered, its revision. The reason of a
/// failure may differ each time, and is no part of the content.
async fn read(key: &Key) -> (Content, Option<Option<Revision>>) {
    match store::get(key).await {
        Ok(Some(value)) => {
            let content = Content::Sha256(config::digest(&value.bytes));
            (content, Some(Some(value.rev)))
        }
        Ok(None) => {
            let content = Content::Unreadable("there is no such key".into());
            (content, Some(None))
        }
        Err(_) => {
            let content = Content::Unreadable("the store has no answer that counts".into());
            (content, None)
        }
    }
}
