//! The three verbs, which are the same for every store.

use std::time::{Duration, Instant};

use hello::{
    fleet::Key,
    host::store::{self, PutResult, Revision, WaitResult},
};

use super::{LIMIT, block_on, get, put, wait};

/// Writers that want to write one key at the same time.
const WRITERS: usize = 100;

fn stored(result: PutResult) -> Revision {
    match result {
        PutResult::Stored(rev) => rev,
        PutResult::Conflict => panic!("a conflict"),
    }
}

/// Checks that a key which does not exist is read, created, written and protected.
pub(super) fn reads_and_writes(key: &Key) {
    assert_eq!(get(key), None);
    let first = stored(put(key, "one\n", None));
    assert_eq!(put(key, "again", None), PutResult::Conflict);
    let value = get(key).unwrap();
    assert_eq!(value.bytes, b"one\n");
    assert_eq!(value.rev, first);
    let bytes: Vec<u8> = (0..=255).collect();
    let second = stored(block_on(store::put(key, &bytes, Some(&first))).unwrap());
    assert_ne!(second, first);
    assert_eq!(put(key, "late", Some(&first)), PutResult::Conflict);
    let value = get(key).unwrap();
    assert_eq!((value.bytes, &value.rev), (bytes, &second));
    // An empty value is one, and no missing key.
    let third = stored(block_on(store::put(key, b"", Some(&second))).unwrap());
    assert_ne!(third, second);
    assert_eq!(get(key).unwrap().bytes, b"");
}

/// Checks that a wait ends with a change, at once with one from before, and else at its limit.
pub(super) fn waits(key: &Key) {
    let known = stored(put(key, "one", get(key).map(|value| value.rev).as_ref()));
    assert_eq!(
        wait(key, Some(&known), Duration::from_millis(300)),
        WaitResult::Unchanged
    );
    let other = key.clone();
    let writer = std::thread::spawn({
        let known = known.clone();
        move || {
            std::thread::sleep(Duration::from_millis(300));
            stored(put(&other, "two", Some(&known)))
        }
    });
    let began = Instant::now();
    let WaitResult::Changed(Some(value)) = wait(key, Some(&known), 2 * LIMIT) else {
        panic!("it has not changed");
    };
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    assert_eq!(value.bytes, b"two");
    assert_eq!(value.rev, writer.join().unwrap());
    let WaitResult::Changed(Some(value)) = wait(key, Some(&known), 2 * LIMIT) else {
        panic!("a change from before the wait is one");
    };
    assert_eq!(value.bytes, b"two");
}

/// Checks that a wait for a key that does not exist ends when it does.
pub(super) fn waits_for_a_new_key(key: &Key) {
    assert_eq!(
        wait(key, None, Duration::from_millis(300)),
        WaitResult::Unchanged
    );
    let other = key.clone();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stored(put(&other, "new", None))
    });
    let WaitResult::Changed(Some(value)) = wait(key, None, 2 * LIMIT) else {
        panic!("it has not changed");
    };
    assert_eq!(value.rev, writer.join().unwrap());
}

/// Checks that writers which compare revisions lose no write of another.
pub(super) fn writers_lose_nothing(key: &Key) {
    stored(put(key, "", get(key).map(|value| value.rev).as_ref()));
    let append = |number: usize| async move {
        loop {
            let value = store::get(key).await.unwrap().unwrap();
            let mut bytes = value.bytes;
            bytes.extend(format!("{number}\n").bytes());
            let written = store::put(key, &bytes, Some(&value.rev)).await.unwrap();
            if matches!(written, PutResult::Stored(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..200))).await;
        }
    };
    block_on(futures_util::future::join_all((0..WRITERS).map(append)));
    let text = String::from_utf8(get(key).unwrap().bytes).unwrap();
    let mut numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..WRITERS).collect::<Vec<_>>());
}
