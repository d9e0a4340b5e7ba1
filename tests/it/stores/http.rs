//! Keys of an HTTP server: tags, faults, TLS and credentials.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use super::{
    LIMIT,
    authority::{Authority, private},
    block_on, get, get_error,
    http_server::{HttpServer, Mode, answer},
    key, put, verbs, wait,
};
use crate::support::write;
use hello::host::store::{self, PutResult, WaitResult};

/// A short time for requests, and between two readings.
const QUICK: &str = "[[store]]\nurl = \"http://127.0.0.1:PORT\"\ntimeout = \"2s\"\npoll = \"50ms\"";

fn quick(server: &HttpServer) -> String {
    QUICK.replace("PORT", &server.port.to_string())
}

#[test]
fn a_resource_is_a_key_by_its_tag() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::start();
    let key = |path: &str| key(dir.path(), &server.url(path), &quick(&server));
    verbs::reads_and_writes(&key("/a?b=c"));
    verbs::waits(&key("/wait"));
    verbs::waits_for_a_new_key(&key("/new"));
}

#[test]
fn a_hundred_writers_of_a_resource_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::start();
    let table = quick(&server).replace("\"2s\"", "\"60s\"");
    verbs::writers_lose_nothing(&key(dir.path(), &server.url("/many"), &table));
}

#[test]
fn a_key_without_a_strong_tag_is_only_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::start();
    let key = key(dir.path(), &server.url("/a"), &quick(&server));
    for mode in [Mode::Serves("W/"), Mode::NoTag] {
        server.set(mode);
        server.write("/a", b"one");
        let value = get(&key).unwrap();
        let error = block_on(store::put(&key, b"x", Some(&value.rev))).unwrap_err();
        assert!(error.to_string().contains("only be read"), "{error}");
        assert_eq!(get(&key).unwrap().bytes, b"one");
        assert_eq!(
            wait(&key, Some(&value.rev), Duration::from_millis(200)),
            WaitResult::Unchanged
        );
        server.write("/a", b"two");
        let changed = wait(&key, Some(&value.rev), LIMIT);
        assert!(
            matches!(&changed, WaitResult::Changed(Some(value)) if value.bytes == b"two"),
            "{changed:?}"
        );
    }
}

#[test]
fn a_removed_key_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::start();
    let key = key(dir.path(), &server.url("/a"), &quick(&server));
    server.write("/a", b"one");
    let known = get(&key).unwrap().rev;
    server.clear();
    assert_eq!(wait(&key, Some(&known), LIMIT), WaitResult::Changed(None));
    assert_eq!(put(&key, "two", Some(&known)), PutResult::Conflict);
}

#[test]
fn an_answer_that_is_no_value_is_an_error_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::start();
    let key = key(dir.path(), &server.url("/a"), &quick(&server));
    let to = format!("Location: http://127.0.0.1:{}/b\r\n", server.port);
    server.write("/b", b"of another key");
    for (mode, wanted) in [
        (Mode::Silent, "no whole answer within 2s"),
        (Mode::Drips, "no whole answer within 2s"),
        (Mode::Endless, "larger than 16 MiB"),
        (
            Mode::Answers(answer("200 OK", "", &vec![b'#'; (16 << 20) + 1])),
            "larger than 16 MiB",
        ),
        (Mode::Answers(b"\x16\x03garbage".to_vec()), "invalid HTTP"),
        (Mode::Answers(Vec::new()), "connection closed"),
        (
            Mode::Answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()),
            "end of file before message length reached",
        ),
        (
            Mode::Answers(b"HTTP/1.1 200 OK\r\n\r\nwhole or half".to_vec()),
            "neither a length nor a mark of its end",
        ),
        (
            Mode::Answers(answer("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b")),
            "encoded as `gzip`",
        ),
        (
            Mode::Answers(answer("302 Found", &to, b"")),
            "answers 302 Found (Location: http://127.0.0.1",
        ),
        (
            Mode::Answers(answer("204 No Content", "", b"")),
            "answers 204",
        ),
        (
            Mode::Answers(answer("206 Partial Content", "", b"half")),
            "answers 206",
        ),
        (
            Mode::Answers(answer("304 Not Modified", "", b"")),
            "answers 304",
        ),
        (
            Mode::Answers(answer("401 Unauthorized", "", b"")),
            "set `auth_file = PATH` or `bearer_file = PATH` in its [[store]]",
        ),
        (
            Mode::Answers(answer("500 Internal Server Error", "", b"")),
            "answers 500",
        ),
        (
            Mode::Answers(b"HTTP/1.1 502 Bad Gateway\r\n\r\nwhole or half".to_vec()),
            "answers 502",
        ),
    ] {
        server.set(mode);
        let began = Instant::now();
        let error = get_error(&key);
        assert!(error.contains(wanted), "{wanted}: {error}");
        assert!(began.elapsed() < LIMIT, "{wanted}: {:?}", began.elapsed());
    }
}

#[test]
fn the_largest_value_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = HttpServer::start();
    let key = key(
        dir.path(),
        &server.url("/a"),
        &quick(&server).replace("2s", "60s"),
    );
    let bytes = vec![b'#'; 16 << 20];
    server.write("/a", &bytes);
    assert!(get(&key).unwrap().bytes == bytes);
}

#[test]
fn a_store_that_is_away_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    drop(listener);
    let error = get_error(&key(dir.path(), &url, ""));
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_store_over_tls_proves_its_name_and_this_client() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let authority = Authority::new();
    write(&dir.path().join("ca.pem"), &authority.pem());
    write(&dir.path().join("other.pem"), &Authority::new().pem());
    authority.issue(dir.path(), "client", &["hello"]);
    let server = HttpServer::start_with(Some(authority.server(dir.path())));
    server.write("/a", b"one");
    let url = format!("https://127.0.0.1:{}/a", server.port);
    let table = |host: &str, rest: &str| {
        format!(
            "[[store]]\nurl = \"https://{host}:{}\"\n{rest}",
            server.port
        )
    };
    let ca = format!("ca = \"{}\"\n", at("ca.pem"));
    let client = format!(
        "client_cert = \"{}\"\nclient_key = \"{}\"\n",
        at("client.pem"),
        at("client.key")
    );
    let whole = table("127.0.0.1", &format!("{ca}{client}"));
    assert_eq!(get(&key(dir.path(), &url, &whole)).unwrap().bytes, b"one");
    let others = url.replace("127.0.0.1", "localhost");
    for (url, table, wanted) in [
        (&url, table("127.0.0.1", &client), "`ca`"),
        (
            &url,
            table(
                "127.0.0.1",
                &format!("ca = \"{}\"\n{client}", at("other.pem")),
            ),
            "invalid peer certificate",
        ),
        (&url, table("127.0.0.1", &ca), "ertificate"),
        (
            &others,
            table("localhost", &format!("{ca}{client}")),
            "not valid for name",
        ),
    ] {
        let error = get_error(&key(dir.path(), url, &table));
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn credentials_come_from_files_and_reach_their_server_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let server = HttpServer::start();
    server.write("/a", b"one");
    let table = |url: &str| {
        format!(
            "[[store]]\nurl = \"{url}\"\nbearer_file = \"{}\"",
            file.display()
        )
    };
    private(&file, "geheim-1\n");
    get(&key(dir.path(), &server.url("/a"), &table(&server.url(""))));
    let sent = server.heads().pop().unwrap();
    assert!(sent.contains("authorization: bearer geheim-1"), "{sent}");
    // The file is read for each request.
    private(&file, "geheim-2\n");
    get(&key(
        dir.path(),
        &server.url("/a"),
        &table(&server.url("/a")),
    ));
    let sent = server.heads().pop().unwrap();
    assert!(sent.contains("authorization: bearer geheim-2"), "{sent}");
    for other in [
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "https://h.example/a",
    ] {
        get(&key(dir.path(), &server.url("/a"), &table(other)));
        let sent = server.heads().pop().unwrap();
        assert!(!sent.contains("authorization"), "{other}: {sent}");
    }
    let key = key(dir.path(), &server.url("/a"), &table(&server.url("")));
    let challenge = "WWW-Authenticate: Bearer geheim-2\r\n";
    server.set(Mode::Answers(answer("401 Unauthorized", challenge, b"")));
    let error = get_error(&key);
    assert!(
        error.contains("401") && !error.contains("geheim"),
        "{error}"
    );
    for (mode, wanted) in [(0o644, "chmod o-r"), (0o620, "chmod go-w")] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = get_error(&key);
        assert!(error.contains(wanted), "{error}");
    }
}
