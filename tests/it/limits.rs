//! Peers that never end, clients that never leave, and names of other machines.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crate::support::{CommandResult, Fleet, try_get};

/// The most bytes that a peer can send in one attempt: those that are read, and the kernel buffers
/// of both sides.
const MOST: usize = 16 << 20;
/// The longest measured time of an attempt of one second. Other tests keep the machine busy.
const LONGEST: Duration = Duration::from_secs(15);

/// Sends `head`, then `rest` repeatedly. Returns the number of bytes sent, and the time.
fn flood(
    stream: &mut (impl Read + Write),
    head: &[u8],
    rest: &[u8],
    pause: Duration,
) -> (usize, Duration) {
    let (began, mut sent) = (Instant::now(), 0);
    let mut piece = [0; 4096];
    let _ = stream.read(&mut piece);
    let _ = stream.write_all(head);
    while let Ok(length @ 1..) = stream.write(rest) {
        sent += length;
        if sent > 64 * MOST || began.elapsed() > 4 * LONGEST {
            break;
        }
        thread::sleep(pause);
    }
    (sent, began.elapsed())
}

/// Starts a peer on a TCP and on a Unix socket, and returns the report of each connection.
fn peers(
    dir: &Path,
    name: &str,
    head: &[u8],
    rest: &[u8],
    pause: Duration,
) -> ([String; 2], Receiver<(usize, Duration)>) {
    let (tell, heard) = channel();
    let (head, rest): (Vec<u8>, Vec<u8>) = (head.into(), rest.into());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell_tcp, head_tcp, rest_tcp) = (tell.clone(), head.clone(), rest.clone());
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut s| {
            tell_tcp
                .send(flood(&mut s, &head_tcp, &rest_tcp, pause))
                .unwrap_or_default()
        })
    });
    let path = dir.join(name);
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut s| {
            tell.send(flood(&mut s, &head, &rest, pause))
                .unwrap_or_default()
        })
    });
    ([url, format!("unix:{}", path.display())], heard)
}

/// Runs `status` with server 0 probed at `endpoint`, and server 1 unchanged.
fn status(fleet: &Fleet, endpoint: &str) -> CommandResult {
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    let [odd, well] = [0, 1].map(|at| fleet.pid(at));
    let group = "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\n";
    let path = fleet
        .write("peer.toml", &format!("{group}match = {{ exe = {name:?} }}\ninstances = [{{ pid = {odd}, endpoint = {endpoint:?} }}, {{ pid = {well} }}]\n"));
    CommandResult::of(
        Command::new(fleet.exe())
            .args(["status", "-o", "json", "--fleet"])
            .arg(path)
            .arg("--state")
            .arg(fleet.path("state")),
    )
}

#[test]
fn an_endless_answer_ends_the_probe_attempt() {
    let fleet = Fleet::start(2);
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{ok}Transfer-Encoding: chunked\r\n\r\n");
    let heads = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(2000);
    let (headers, chunks) = (
        "A: b\r\n".repeat(8000),
        format!("8000\r\n{}\r\n", "x".repeat(0x8000)),
    );
    let (small, long) = ("1\r\nx\r\n".repeat(8000), "y".repeat(1 << 16));
    let cases: [(&str, &str, &str, u64); 9] = [
        ("heads", "", &heads, 0),
        ("headers", ok, &headers, 0),
        ("header", "HTTP/1.1 200 OK\r\nA: ", &long, 0),
        ("chunks", &chunked, &chunks, 0),
        ("small", &chunked, &small, 0),
        ("extension", &format!("{chunked}1;"), &long, 0),
        (
            "trailers",
            &format!("{chunked}1\r\nx\r\n0\r\n"),
            &headers,
            0,
        ),
        ("nothing", ok, "A", 1000),
        ("endless", &format!("{ok}\r\n"), &long, 0),
    ];
    for (name, head, rest, pause) in cases {
        let (endpoints, heard) = peers(
            fleet.dir.path(),
            name,
            head.as_bytes(),
            rest.as_bytes(),
            Duration::from_millis(pause),
        );
        for endpoint in endpoints {
            let began = Instant::now();
            let result = status(&fleet, &endpoint).expect(7);
            assert!(
                began.elapsed() < LONGEST,
                "{name} at {endpoint}: {:?}",
                began.elapsed()
            );
            let rows = result.json["instances"].as_array().unwrap();
            assert!(rows.iter().any(|row| row["pid"] == fleet.pid(1) && row["faults"] == serde_json::json!([])), "{name}: {:#}", result.json);
            let (sent, took) = heard.recv_timeout(2 * LONGEST).unwrap();
            assert!(
                sent < MOST,
                "{name} at {endpoint}: {sent} bytes in {took:?}"
            );
            assert!(
                took < LONGEST,
                "{name} at {endpoint}: {sent} bytes in {took:?}"
            );
        }
    }
}

/// A server with this limit of open files. Killed by its pid when dropped.
struct Few(Child, String);

impl Few {
    fn start(fleet: &Fleet, descriptors: usize, more: &[&str]) -> Self {
        let script = format!("ulimit -n {descriptors}; exec \"$0\" serve --config \"$@\"");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(fleet.exe())
            .arg(fleet.path("web.toml"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut few = Self(child, String::new());
        BufReader::new(stdout).read_line(&mut few.1).unwrap();
        few.1 = few.1.trim().to_owned();
        few
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream =
            TcpStream::connect(self.1.trim_start_matches("http://").trim_end_matches('/')).unwrap();
        stream.set_read_timeout(Some(4 * LONGEST)).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a request over a kept connection. Returns `None` if the server closed it first.
fn ask(stream: &mut BufReader<TcpStream>) -> Option<String> {
    stream
        .get_mut()
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        length = line
            .strip_prefix("content-length: ")
            .map_or(length, |n| n.parse().unwrap());
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

#[test]
fn idle_connections_are_closed_when_there_is_no_room() {
    let fleet = Fleet::start(0);
    let server = Few::start(&fleet, 64, &[]);
    // One connection with a request under way, then as many as fit.
    let mut half = server.connect();
    half.get_mut().write_all(b"GET / HTTP/1.1\r\nHost").unwrap();
    let mut kept: Vec<_> = (0..31).map(|_| server.connect()).collect();
    assert!(
        kept.iter_mut()
            .all(|stream| ask(stream).as_deref() == Some("one"))
    );
    // And some that have never sent a byte.
    let mute: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let began = Instant::now();
    for _ in 0..5 {
        let (head, body) = try_get(&server.1, "/").unwrap();
        assert!(head.starts_with("http/1.1 200"));
        assert!(body == "one");
    }
    assert!(
        began.elapsed() < LONGEST,
        "a new client is answered after {:?}",
        began.elapsed()
    );
    // The connection with a request under way still exists.
    half.get_mut()
        .write_all(b": x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    half.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.ends_with("one"), "{text}");
    assert_eq!(
        std::fs::read_dir(format!("/proc/{}/task", server.0.id()))
            .unwrap()
            .count(),
        1,
        "one thread"
    );
    drop(mute);
}

#[test]
fn no_connection_is_closed_while_there_is_room() {
    let fleet = Fleet::start(0);
    let server = Few::start(&fleet, 64, &[]);
    let mut kept: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for _ in 0..3 {
        assert!(
            kept.iter_mut()
                .all(|stream| ask(stream).as_deref() == Some("one"))
        );
        thread::sleep(Duration::from_millis(700));
        try_get(&server.1, "/").unwrap();
    }
}

/// Returns the answer to `path` for a request with these further lines.
fn asked(url: &str, path: &str, lines: &str) -> String {
    let mut stream =
        TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/')).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.to_lowercase()
}

#[test]
fn proof_is_for_direct_requests_that_name_this_machine() {
    let fleet = Fleet::start(0);
    let server = Few::start(&fleet, 256, &[]);
    let port = server.1.trim_end_matches('/').rsplit(':').next().unwrap();
    let local = [
        "localhost",
        &format!("localhost:{port}"),
        &format!("127.0.0.1:{port}"),
        "[::1]",
        "web",
    ]
    .map(|host| format!("Host: {host}\r\n"));
    for lines in local {
        assert!(
            asked(&server.1, "/", &lines).contains("x-instance: "),
            "{lines}"
        );
        assert!(
            asked(&server.1, "/-/config", &lines).starts_with("http/1.1 200"),
            "{lines}"
        );
    }
    let foreign = [
        "Host: evil.example\r\n".to_owned(),
        format!("Host: evil.example:{port}\r\n"),
        "Host: localhost\r\nHost: evil.example\r\n".into(),
        "Host: 10.0.0.1\r\n".into(),
        "Host: localhost\r\nX-Forwarded-For: 10.0.0.1\r\n".into(),
        "Host: localhost\r\nForwarded: for=10.0.0.1\r\n".into(),
    ];
    for lines in &foreign {
        let page = asked(&server.1, "/", lines);
        assert!(page.starts_with("http/1.1 200"), "{lines}: {page}");
        assert!(page.ends_with("one"), "{lines}: {page}");
        assert!(!page.contains("x-config"), "{lines}: {page}");
        assert!(!page.contains("x-instance"), "{lines}: {page}");
        for path in ["/-/config", "/-/metrics", "/-/healthy", "/-/none"] {
            let page = asked(&server.1, path, lines);
            assert!(page.starts_with("http/1.1 403"), "{lines} {path}: {page}");
            assert!(!page.contains("x-config"), "{lines} {path}: {page}");
        }
    }
    assert!(
        asked(
            &server.1,
            "http://evil.example/-/config",
            "Host: localhost\r\n"
        )
        .starts_with("http/1.1 403"),
        "the name in the request line counts"
    );
    let any = Few::start(&fleet, 256, &["--proof", "any"]);
    for lines in &foreign {
        assert!(
            asked(&any.1, "/", lines).contains("x-instance: "),
            "{lines}"
        );
        assert!(
            asked(&any.1, "/-/config", lines).starts_with("http/1.1 200"),
            "{lines}"
        );
    }
}

#[test]
fn an_assertion_with_a_foreign_host_name_is_refused_before_any_signal() {
    let fleet = Fleet::start(1);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let confirm = |host: &str| {
        format!(
            "{text}[[group.confirm]]\nhttp = \"http://{{listen}}/\"\nhost = \"{host}\"\nequals = \"{{candidate.message}}\"\n"
        )
    };
    fleet.write("fleet.toml", &confirm("web.example"));
    let result = fleet.broadcast(&["--set", "message=two"]).expect(5);
    assert!(
        result.json["reason"]
            .as_str()
            .unwrap()
            .contains("--proof any"),
        "{:#}",
        result.json
    );
    assert_eq!(
        (fleet.bodies(), fleet.attempts()),
        (vec!["one".to_owned()], vec![1])
    );
    fleet.write("fleet.toml", &confirm("localhost"));
    fleet.broadcast(&["--set", "message=two"]).expect(0);
}

#[test]
fn an_endpoint_of_a_foreign_name_is_refused_with_the_reason() {
    let fleet = Fleet::start(2);
    let port = fleet
        .url(0)
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let faults = |host: &str| {
        let result = status(&fleet, &format!("http://{host}:{port}/"));
        result.json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["pid"] == fleet.pid(0))
            .unwrap()["faults"]
            .to_string()
    };
    assert_eq!(
        (faults("localhost"), faults("127.0.0.1")),
        ("[]".into(), "[]".into())
    );
    // A loopback name with a dot, which the resolver answers by itself.
    let foreign = faults("hello.localhost");
    assert!(
        foreign.contains("--proof any") || foreign.contains("lookup"),
        "{foreign}"
    );
}
