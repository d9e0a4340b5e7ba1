#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

#[test]
fn a_url_says_where_its_request_goes() {
    let way = |url: &str, endpoint: &str| {
        Target::of(
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
        let wanted = Target {
            socket,
            tls: url.starts_with("https"),
            authority: authority.into(),
            path: path.into(),
        };
        assert_eq!(way(url, endpoint).unwrap(), wanted, "{url}");
    }
    assert!(
        way("http://{listen}/", "")
            .unwrap_err()
            .contains("no endpoint")
            && way("http://a b/", "").is_err()
    );
}

/// A peer that answers whatever comes by the same bytes again and again; its port.
fn floods(bytes: &'static [u8]) -> u16 {
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
async fn a_flood_ends_its_attempt_and_holds_up_no_other_task() {
    // Alerts of TLS that mean nothing, heads that announce another, and a record that is as
    // long as one can be.
    let warning: &[u8] = b"\x15\x03\x03\x00\x02\x01\x5a";
    let cases: [(&str, &'static [u8]); 4] = [
        ("https", warning.repeat(4096).leak()),
        ("https", vec![0x16; 1 << 16].leak()),
        ("http", b"HTTP/1.1 103 A\r\n\r\n".repeat(4096).leak()),
        ("http", vec![b'a'; 1 << 16].leak()),
    ];
    for (scheme, bytes) in cases {
        let ask = HttpRequest {
            url: format!("{scheme}://127.0.0.1:{}/", floods(bytes)),
            insecure: scheme == "https",
            ..HttpRequest::default()
        };
        let (known, began) = (Values::at(""), std::time::Instant::now());
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
        let (answer, turns) = tokio::join!(get(&ask, &known), turns);
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
async fn what_is_read_of_one_attempt_is_bounded() {
    use tokio::io::AsyncReadExt;
    let mut stream = Metered::new(tokio::io::repeat(7), MAX_STATUS);
    let mut all = Vec::new();
    let why = stream.read_to_end(&mut all).await.unwrap_err();
    assert_eq!(
        (all.len(), why.to_string().as_str()),
        (MAX_STATUS, "it sends more than 1280 KiB")
    );
}
