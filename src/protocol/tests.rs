#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{greeting::GREETING_START, *};

mod run;

fn greeting() -> Greeting {
    Greeting {
        hello: "agent".into(),
        v: VERSION,
        min: VERSION,
        version: "0.1.0".into(),
        arch: "x86_64".into(),
        boot: "5f6c1f0e".into(),
        uid: 0,
        host: None,
        labels: std::collections::BTreeMap::new(),
        fleet: Some("/etc/hello/fleet.toml".into()),
        fault: None,
        can: Vec::new(),
        groups: Vec::new(),
        open: Vec::new(),
        limits: Limits {
            lease_s: 60,
            confirm_max_s: 86_400,
            line: MAX_LINE,
            blob: MAX_BLOB,
        },
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn read(bytes: &[u8]) -> Result<Option<Value>, FrameError> {
    block_on(FrameReader::new(bytes).next())
}

fn greet(bytes: &[u8]) -> (Result<Option<Greeting>, FrameError>, String) {
    let mut noise = Vec::new();
    let greeting = block_on(FrameReader::new(bytes).greeting(&mut noise));
    (greeting, String::from_utf8_lossy(&noise).into_owned())
}

#[test]
fn a_frame_is_one_line_and_may_end_as_a_terminal_ends_it() {
    assert_eq!(
        read(b"{\"a\":1}\n{\"a\":2}\n").unwrap(),
        Some(json!({"a": 1}))
    );
    assert_eq!(read(b"{\"a\":1}\r\n").unwrap(), Some(json!({"a": 1})));
    assert!(read(b"").unwrap().is_none());
}

#[test]
fn a_line_without_its_end_is_no_frame() {
    assert!(matches!(read(b"{\"a\":1}"), Err(FrameError::Cut)));
}

#[test]
fn limits_hold_before_a_line_is_parsed() {
    let long = vec![b' '; MAX_LINE + 1];
    assert!(matches!(read(&long), Err(FrameError::Long)));
    let deep = format!("{}{}\n", "[".repeat(65), "]".repeat(65));
    assert!(matches!(read(deep.as_bytes()), Err(FrameError::Deep)));
    let flat = format!("{}1{}\n", "[".repeat(64), "]".repeat(64));
    assert!(read(flat.as_bytes()).is_ok());
    let text = format!("\"{}\"\n", "[".repeat(100));
    assert!(read(text.as_bytes()).is_ok());
}

#[test]
fn a_line_of_exactly_the_limit_is_read() {
    let mut line = format!("\"{}\"", "x".repeat(MAX_LINE - 3)).into_bytes();
    line.push(b'\n');
    assert_eq!(line.len(), MAX_LINE);
    assert!(read(&line).unwrap().is_some());
}

#[test]
fn noise_before_the_greeting_is_kept_and_does_no_harm() {
    let line = serde_json::to_string(&greeting()).unwrap();
    let (read, noise) = greet(format!("Welcome!\r\n{{\"x\":1}}\n{line}\r\n").as_bytes());
    assert_eq!(read.unwrap(), Some(greeting()));
    assert_eq!(noise, "Welcome!\r\n{\"x\":1}\n");
}

#[test]
fn noise_without_a_greeting_is_shown_whole_up_to_its_limit() {
    let (read, noise) = greet(b"bash: hello: command not found");
    assert!(read.unwrap().is_none());
    assert_eq!(noise, "bash: hello: command not found");
    let (read, noise) = greet(&vec![b'x'; 3 * MAX_LINE]);
    assert!(read.unwrap().is_none());
    assert_eq!(noise.len(), 64 << 10);
}

#[test]
fn a_greeting_of_a_later_version_is_read_and_its_dialect_is_not_common() {
    let mut later = serde_json::to_value(greeting()).unwrap();
    later["new"] = json!({"x": 1});
    let read: Greeting = serde_json::from_value(later).unwrap();
    assert_eq!(common_version(&read), Some(VERSION));
    let skewed = Greeting {
        v: VERSION + 2,
        min: VERSION + 1,
        ..greeting()
    };
    assert_eq!(common_version(&skewed), None);
}

#[test]
fn the_greeting_begins_with_its_mark() {
    let line = serde_json::to_vec(&greeting()).unwrap();
    assert!(line.starts_with(GREETING_START));
}

#[test]
fn an_answer_of_many_rows_goes_on_in_further_lines() {
    let row = json!({"x": "y".repeat(100_000)});
    let lines = Answer::lines(vec![row; 12], Map::new()).unwrap();
    let rows: usize = lines.iter().map(|line| line.rows.len()).sum();
    assert_eq!(rows, 12);
    let more: Vec<bool> = lines.iter().map(|line| line.more).collect();
    assert_eq!(more, [true, true, false]);
    for line in &lines {
        assert!(serde_json::to_vec(line).unwrap().len() < MAX_LINE);
    }
    assert!(Answer::lines(vec![json!("y".repeat(MAX_LINE))], Map::new()).is_err());
}

#[test]
fn a_frame_that_is_not_known_is_an_error_and_an_unknown_field_is_not() {
    let parse = serde_json::from_str::<Request>;
    assert!(parse("{\"q\":\"reboot\"}").is_err());
    assert_eq!(parse("{\"q\":\"bye\",\"later\":1}").unwrap(), Request::Bye);
}

#[test]
fn a_kind_of_refusal_that_is_not_known_is_still_a_refusal() {
    let text = r#"{"a":0,"no":{"kind":"later","text":"no"}}"#;
    let answer: Answer = serde_json::from_str(text).unwrap();
    assert_eq!(answer.no.unwrap().kind, RefusedKind::Unknown);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = greet(&bytes);
    }
}
