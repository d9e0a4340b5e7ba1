#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{path::Path, time::Duration};

use super::*;
use crate::{
    fleet::StoreAccess,
    host::store::{WaitResult, get, put, wait},
};

#[test]
fn a_key_and_a_revision_are_filled_in_once() {
    let argv = ["x", "{key}={rev}", "${key}"].map(String::from);
    assert_eq!(filled(&argv, "a{rev}", "7"), ["x", "a{rev}=7", "${key}"]);
}

#[test]
fn the_first_line_is_the_revision() {
    let line =
        |text: &'static str| first_line(text.as_bytes()).map(|(rev, rest)| (rev.0, rest.to_vec()));
    assert_eq!(line("7\nab\nc"), Some(("7".into(), b"ab\nc".to_vec())));
    assert_eq!(line("7\r\n"), Some(("7".into(), Vec::new())));
    assert_eq!(line("7"), Some(("7".into(), Vec::new())));
    assert_eq!(line("\nab"), None);
    assert_eq!(line("\u{1}\nab"), None);
    assert_eq!(first_line(&[b'7'; MAX_REVISION + 1]), None);
}

/// A store of files, each with a number in its first line.
const GET: &str = "#!/bin/sh\n[ -e \"$1\" ] || exit 3\nexec cat \"$1\"\n";
const PUT: &str = "#!/bin/sh
exec 9>\"${1%/*}/lock\" && flock 9
now=$(sed -n 1p \"$1\" 2>/dev/null)
[ \"$now\" = \"$2\" ] || exit 3
rev=$((${now:-0} + 1))
{ echo $rev; cat; } >\"$1.new\" && mv \"$1.new\" \"$1\" && echo $rev
";

/// Returns the key `name` of a store whose files are in `dir`.
fn key(dir: &Path, name: &str) -> Key {
    let script = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let commands = StoreCommands {
        key: dir.join(name).display().to_string(),
        get: ["sh", &script("get", GET), "{key}"]
            .map(String::from)
            .into(),
        put: ["sh", &script("put", PUT), "{key}", "{rev}"]
            .map(String::from)
            .into(),
        rev: CommandRevision::FirstLine,
    };
    Key {
        url: format!("exec://files/{name}"),
        access: StoreAccess {
            poll: Duration::from_millis(20),
            timeout: Duration::from_secs(60),
            commands: Some(commands),
            ..StoreAccess::default()
        },
    }
}

fn rev(text: &str) -> Revision {
    Revision(text.to_owned())
}

#[tokio::test]
async fn a_key_is_read_written_and_protected_by_commands() {
    let dir = tempfile::tempdir().unwrap();
    let key = key(dir.path(), "a");
    assert_eq!(get(&key).await.unwrap(), None);
    let bytes: Vec<u8> = (0..=255).collect();
    let stored = put(&key, &bytes, None).await.unwrap();
    assert_eq!(stored, PutResult::Stored(rev("1")));
    let value = get(&key).await.unwrap().unwrap();
    assert_eq!((value.bytes, value.rev), (bytes, rev("1")));
    for expected in [None, Some(rev("7"))] {
        let result = put(&key, b"x", expected.as_ref()).await.unwrap();
        assert_eq!(result, PutResult::Conflict);
    }
    let large = vec![b'#'; MAX_VALUE];
    let stored = put(&key, &large, Some(&rev("1"))).await.unwrap();
    assert_eq!(stored, PutResult::Stored(rev("2")));
    assert!(get(&key).await.unwrap().unwrap().bytes == large);
    let limit = Duration::from_millis(100);
    let waited = wait(&key, Some(&rev("2")), limit).await.unwrap();
    assert_eq!(waited, WaitResult::Unchanged);
    let known = rev("2");
    let waiting = wait(&key, Some(&known), Duration::from_secs(60));
    let (waited, stored) = tokio::join!(waiting, put(&key, b"new", Some(&known)));
    assert_eq!(stored.unwrap(), PutResult::Stored(rev("3")));
    assert!(
        matches!(waited.unwrap(), WaitResult::Changed(Some(value)) if value.bytes == b"new"),
        "it has not changed"
    );
}

#[tokio::test]
async fn writers_by_commands_lose_nothing() {
    const WRITERS: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let key = &key(dir.path(), "many");
    put(key, b"", None).await.unwrap();
    let append = |number: usize| async move {
        loop {
            let value = get(key).await.unwrap().unwrap();
            let mut bytes = value.bytes;
            bytes.extend(format!("{number}\n").bytes());
            let written = put(key, &bytes, Some(&value.rev)).await.unwrap();
            if matches!(written, PutResult::Stored(_)) {
                return;
            }
        }
    };
    futures_util::future::join_all((0..WRITERS).map(append)).await;
    let text = String::from_utf8(get(key).await.unwrap().unwrap().bytes).unwrap();
    let mut numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..WRITERS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_store_without_a_put_is_only_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut key = key(dir.path(), "a");
    key.access.commands.as_mut().unwrap().put.clear();
    let error = put(&key, b"x", None).await.unwrap_err().to_string();
    assert!(error.contains("has no `put`"), "{error}");
}

#[tokio::test]
async fn a_command_that_fails_is_an_error_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut key = key(dir.path(), "a");
    key.access.timeout = Duration::from_secs(2);
    for (script, wanted) in [
        ("echo why >&2; exit 9", "`sh` exited with 9: why"),
        ("kill -9 $$", "signal 9"),
        ("exec sleep 600", "within 2s"),
        ("echo", "printed no revision"),
        (
            "echo 7; exec head -c 16777217 /dev/zero",
            "larger than 16 MiB",
        ),
        ("exec yes", "within 2s"),
    ] {
        key.access.commands.as_mut().unwrap().get = ["sh", "-c", script].map(String::from).into();
        let error = get(&key).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}
