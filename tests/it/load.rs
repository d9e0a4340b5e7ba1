//! A load generator without retries sees every reload and only complete answers.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::support::Fleet;

const BROADCASTS: usize = 205;

fn config(n: usize) -> String {
    format!("# the shared one\nmessage = \"message {n}\" # said\nlisten = \"127.0.0.1:0\"\n")
}

fn digest(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Sends one request. Returns body and digest of exactly one answer.
fn ask(stream: &mut BufReader<TcpStream>, kept: bool) -> (String, String) {
    let connection = if kept { "keep-alive" } else { "close" };
    write!(
        stream.get_mut(),
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n"
    )
    .unwrap();
    let (mut length, mut sha256, mut line) = (None, None, String::new());
    loop {
        line.clear();
        assert!(
            stream.read_line(&mut line).unwrap() > 0,
            "the connection ended in the middle of an answer"
        );
        let text = line.trim_end().to_lowercase();
        if text.is_empty() {
            break;
        }
        if text.starts_with("http/") {
            assert_eq!(text, "http/1.1 200 ok");
        }
        length = text
            .strip_prefix("content-length: ")
            .map(|n| n.parse().unwrap())
            .or(length);
        sha256 = text
            .strip_prefix("x-config-sha256: ")
            .map(str::to_owned)
            .or(sha256);
    }
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).unwrap();
    (String::from_utf8(body).unwrap(), sha256.unwrap())
}

fn connect(url: &str) -> BufReader<TcpStream> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    BufReader::new(stream)
}

#[test]
fn two_hundred_broadcasts_under_load_break_no_answer() {
    let fleet = Fleet::start(2);
    fleet.write("web.toml", &config(0));
    fleet.broadcast(&[]).expect(0);
    let valid: Arc<HashMap<String, String>> = Arc::new(
        (0..=BROADCASTS)
            .map(|n| (format!("message {n}"), digest(&config(n))))
            .collect(),
    );
    let (stop, seen) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(Mutex::new(HashSet::new())),
    );
    let clients: Vec<_> = [(0, true), (0, false), (1, true), (1, false)]
        .into_iter()
        .map(|(at, kept)| {
            let (url, valid, stop, seen) = (
                fleet.url(at).to_owned(),
                valid.clone(),
                stop.clone(),
                seen.clone(),
            );
            thread::spawn(move || {
                let (mut stream, mut answers) = (connect(&url), 0usize);
                while !stop.load(Ordering::Relaxed) {
                    if !kept {
                        stream = connect(&url);
                    }
                    let (body, sha256) = ask(&mut stream, kept);
                    assert_eq!(
                        valid.get(&body),
                        Some(&sha256),
                        "{body:?} is no pair with {sha256}"
                    );
                    answers += 1;
                    seen.lock().unwrap().insert(body);
                }
                answers
            })
        })
        .collect();
    for n in 1..=BROADCASTS {
        let message = format!("message=message {n}");
        let output = fleet.command(&["-q", "--set", &message]).output().unwrap();
        if output.status.code() != Some(0) {
            stop.store(true, Ordering::Relaxed);
            panic!("broadcast {n}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(
            clients.iter().all(|c| !c.is_finished()),
            "a client failed during broadcast {n}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    let answers: usize = clients.into_iter().map(|c| c.join().unwrap()).sum();
    let generations = seen.lock().unwrap().len();
    assert!(
        answers > BROADCASTS,
        "{answers} answers of {generations} configs are too few to prove anything"
    );
    assert!(
        generations > BROADCASTS / 2,
        "{answers} answers of {generations} configs are too few to prove anything"
    );
}
