#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

#[test]
fn a_url_names_the_destination_of_its_request() {
    let destination = |url: &str, endpoint: &str| {
        Destination::of(
            &HttpRequest {
                url: url.into(),
                ..own("")
            },
            &Values::at(endpoint),
        )
    };
    let tcp = |host: &str, port| Socket::Tcp(host.into(), port);
    for (url, endpoint, socket, authority, path) in [
        (
            "http://{listen}/a?b",
            "http://127.0.0.1:81/",
            tcp("127.0.0.1", 81),
            "127.0.0.1:81",
            "/a?b",
        ),
        (
            "https://{listen}",
            "https://[::1]:81/",
            tcp("::1", 81),
            "[::1]:81",
            "/",
        ),
        (
            "http://{listen.host}:82/{pid}",
            "http://127.0.0.1:81/",
            tcp("127.0.0.1", 82),
            "127.0.0.1:82",
            "/0",
        ),
        ("https://x.test?a", "", tcp("x.test", 443), "x.test", "/?a"),
        ("http://x.test/", "", tcp("x.test", 80), "x.test", "/"),
        (
            "http://{listen}/a",
            "unix:/run/x.sock",
            Socket::Unix("/run/x.sock".into()),
            "localhost",
            "/a",
        ),
    ] {
        let expected = Destination {
            socket,
            tls: url.starts_with("https"),
            authority: authority.into(),
            path: path.into(),
        };
        assert_eq!(destination(url, endpoint).unwrap(), expected, "{url}");
    }
    let error = destination("http://{listen}/", "").unwrap_err();
    assert!(matches!(error, HttpError::NoValue(_)), "{error}");
    assert!(destination("http://a b/", "").is_err());
}

/// Starts a peer that answers every connection by the same bytes without end. Returns its port.
fn start_flood(bytes: &'static [u8]) -> u16 {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .for_each(|mut stream| while stream.write_all(bytes).is_ok() {})
    });
    port
}

#[tokio::test]
async fn a_flood_ends_its_attempt_and_delays_no_other_task() {
    // TLS alerts without a meaning, the longest TLS record, heads that announce another head, and
    // a head without an end.
    let warning: &[u8] = b"\x15\x03\x03\x00\x02\x01\x5a";
    let cases: [(&str, &'static [u8]); 4] = [
        ("https", warning.repeat(4096).leak()),
        ("https", vec![0x16; 1 << 16].leak()),
        ("http", b"HTTP/1.1 103 A\r\n\r\n".repeat(4096).leak()),
        ("http", vec![b'a'; 1 << 16].leak()),
    ];
    for (scheme, bytes) in cases {
        let request = HttpRequest {
            url: format!("{scheme}://127.0.0.1:{}/", start_flood(bytes)),
            insecure: scheme == "https",
            ..HttpRequest::default()
        };
        let values = Values::at("");
        let began = std::time::Instant::now();
        let turns = async {
            let mut turns = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                turns += 1;
                if turns > 2 || began.elapsed() > 10 * QUICK {
                    break turns;
                }
            }
        };
        let (answer, turns) = tokio::join!(get(&request, &values), turns);
        assert!(
            answer.is_err() && turns > 2,
            "{scheme}: {turns} turns of another task"
        );
        assert!(
            began.elapsed() < 10 * QUICK,
            "{scheme}: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test]
async fn the_bytes_that_one_attempt_reads_are_limited() {
    use tokio::io::AsyncReadExt;
    let mut stream = Metered::new(tokio::io::repeat(7), MAX_STATUS);
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(bytes.len(), MAX_STATUS);
    assert_eq!(error.to_string(), "it sends more than 1280 KiB");
}
