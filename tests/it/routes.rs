//! `hello serve`: the response to each method and path, to a local and to a foreign request.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Fleet, get, until};

const LOCAL: &str = "localhost";
/// The name that a web page of another machine came from.
const FOREIGN: &str = "evil.example";

/// The headers that show the served config.
const PROOF: [&str; 3] = ["x-config-sha256", "x-config-generation", "x-instance"];

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Returns the names of the proof headers that it has.
    fn proof(&self) -> Vec<&str> {
        let mut names = PROOF.to_vec();
        names.retain(|name| self.header(name).is_some());
        names
    }
}

fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/')).unwrap()
}

fn read(mut stream: TcpStream) -> Response {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Response {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Sends a request that names `host`, over a connection of its own.
fn request(url: &str, method: &str, path: &str, host: &str) -> Response {
    let mut stream = connect(url);
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    read(stream)
}

#[test]
fn each_method_and_path_has_its_status_and_every_local_response_the_proof() {
    let fleet = Fleet::start(1);
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/?x=1", 200),
        ("HEAD", "/", 200),
        ("POST", "/", 405),
        ("GET", "/-/config", 200),
        ("GET", "/-/healthy", 200),
        ("GET", "/-/metrics", 200),
        ("HEAD", "/-/config", 200),
        ("POST", "/-/config", 405),
        ("GET", "/-/", 404),
        ("GET", "/-/none", 404),
        ("GET", "/-//config", 404),
        ("GET", "/-/config/", 404),
        ("GET", "/-", 404),
        ("GET", "/none", 404),
        ("POST", "/none", 404),
        ("GET", "//", 404),
        ("GET", "/%2d/config", 404),
        ("OPTIONS", "*", 404),
        ("CONNECT", "localhost:1", 404),
    ] {
        let response = request(fleet.url(0), method, path, LOCAL);
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.proof(), PROOF, "{method} {path}");
    }
}

#[test]
fn head_has_the_length_of_the_message_and_no_body() {
    let fleet = Fleet::start(1);
    let response = request(fleet.url(0), "HEAD", "/", LOCAL);
    assert_eq!(response.header("content-length"), Some("3"));
    assert_eq!(response.body, "");
}

#[test]
fn another_method_is_told_which_are_allowed() {
    let fleet = Fleet::start(1);
    let response = request(fleet.url(0), "POST", "/", LOCAL);
    assert_eq!(response.header("allow"), Some("GET,HEAD"));
}

#[test]
fn a_foreign_request_is_refused_everywhere_below_the_path_of_the_proof() {
    let fleet = Fleet::start(1);
    for path in [
        "/-/",
        "/-/config",
        "/-/healthy?x=1",
        "/-/metrics",
        "/-/none",
        "/-/none/none",
        "/-//config",
        "/-/config/",
        "/-/..",
    ] {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let response = request(fleet.url(0), method, path, FOREIGN);
            assert_eq!(response.status, 403, "{method} {path}");
            assert_eq!(response.proof(), [""; 0], "{method} {path}");
            assert_eq!(response.header("allow"), None, "{method} {path}");
        }
    }
}

#[test]
fn a_foreign_request_beside_the_path_of_the_proof_is_answered_without_proof() {
    let fleet = Fleet::start(1);
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("POST", "/", 405),
        ("GET", "/-", 404),
        ("GET", "/none", 404),
        ("GET", "/%2d/config", 404),
    ] {
        let response = request(fleet.url(0), method, path, FOREIGN);
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.proof(), [""; 0], "{method} {path}");
    }
}

#[test]
fn headers_and_self_report_agree_in_the_first_response_after_a_signal() {
    let fleet = Fleet::start(1);
    for n in 0..200 {
        fleet.write(
            "web.toml",
            &format!("message = \"{n}\"\nlisten = \"127.0.0.1:0\"\n"),
        );
        fleet.signal(0, Signal::SIGHUP);
        let response = request(fleet.url(0), "GET", "/-/config", LOCAL);
        let report: Value = serde_json::from_str(&response.body).unwrap();
        let effective = &report["effective"];
        assert_eq!(
            response.header("x-config-sha256"),
            effective["sha256"].as_str()
        );
        assert_eq!(
            response.header("x-config-generation"),
            Some(effective["generation"].to_string().as_str())
        );
    }
}

#[test]
fn every_request_is_counted() {
    let fleet = Fleet::start(1);
    let count = || {
        let page = get(fleet.url(0), "/-/metrics").1;
        page.lines()
            .find_map(|line| line.strip_prefix("hello_http_requests_total "))
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = count();
    let all = [
        ("GET", "/", LOCAL),
        ("GET", "/", FOREIGN),
        ("POST", "/", LOCAL),
        ("GET", "/none", LOCAL),
        ("GET", "/-/none", LOCAL),
        ("GET", "/-/config", LOCAL),
        ("GET", "/-/config", FOREIGN),
    ];
    for (method, path, host) in all {
        request(fleet.url(0), method, path, host);
    }
    assert_eq!(
        count() - before,
        all.len() as u64 + 1,
        "the page counts too"
    );
}

#[test]
fn a_draining_server_is_not_healthy() {
    let fleet = Fleet::start(1);
    let mut open = connect(fleet.url(0));
    open.write_all(b"GET /-/healthy HTTP/1.1\r\nHo").unwrap();
    // The server has read the start of the request when it has answered a later one.
    fleet.bodies();
    fleet.signal(0, Signal::SIGTERM);
    let address = open.peer_addr().unwrap();
    until("it accepts no more connections", || {
        TcpStream::connect(address).is_err()
    });
    open.write_all(b"st: x\r\n\r\n").unwrap();
    let response = read(open);
    assert_eq!(response.status, 503);
    assert_eq!(response.header("connection"), Some("close"));
}
