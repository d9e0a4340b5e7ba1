#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::time::{Duration, Instant};

use super::*;
use crate::fleet::Fleet;

fn group(listen: &[&str]) -> Group {
    let group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    Group {
        listen: listen.iter().map(|l| l.parse().unwrap()).collect(),
        ..group
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn only_the_last_of_two_sockets_on_one_path_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let inode = |listener: &std::os::unix::net::UnixListener| -> u64 {
        let link = std::fs::read_link(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(listener)
        ))
        .unwrap();
        link.to_string_lossy()
            .trim_start_matches("socket:[")
            .trim_end_matches(']')
            .parse()
            .unwrap()
    };
    let first = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let address = |listener| {
        Listeners::read()
            .unwrap()
            .sockets
            .get(&inode(listener))
            .unwrap()
            .clone()
    };
    assert_eq!(address(&first), Some(Address::Unix(path.clone())));
    // Its file stays, under another name, so the new one has another inode.
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    let second = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(address(&first), None);
    assert_eq!(address(&second), Some(Address::Unix(path)));
}

#[test]
fn own_listeners_are_found_and_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let six = std::net::TcpListener::bind("[::1]:0").unwrap();
    let both = std::net::TcpListener::bind("[::]:0").unwrap();
    let unix = dir.path().join("s.sock");
    let _unix = std::os::unix::net::UnixListener::bind(&unix).unwrap();
    let listeners = Listeners::read().unwrap();
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    let endpoint = |listen: &[&str]| {
        listeners.endpoint(
            pid,
            &words(&format!("--web :{}", port(&tcp))),
            &group(listen),
        )
    };
    let first = format!("http://127.0.0.1:{}/", port(&tcp));
    let socket = format!("unix:{}", unix.display());
    let any = format!("unix:{}/*", dir.path().display());
    let of_six = format!("tcp:{}", six.local_addr().unwrap());
    // Other tests of this process open and close sockets meanwhile.
    let chosen = |listen: &[&str], url: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match endpoint(listen) {
                Ok(chosen) if chosen == url => return,
                other if Instant::now() > deadline => panic!("{listen:?}: {other:?}"),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    };
    chosen(&[&format!("tcp:{}", port(&tcp))], &first);
    chosen(&[&of_six], &format!("http://[::1]:{}/", port(&six)));
    chosen(&[&socket], &socket);
    chosen(&["{arg:--web}"], &first);
    // The first entry that fits exactly one address decides.
    chosen(&["tcp:1", "{arg:--none}", &any, "{arg:--web}"], &socket);
    for listen in [&[][..], &["tcp:1"][..]] {
        let Refusal { why, hint } = endpoint(listen).unwrap_err();
        let (EndpointError::Several(urls) | EndpointError::NoneChosen(urls)) = why else {
            panic!("{why}");
        };
        assert!(urls.contains(&first) && urls.contains(&socket), "{urls:?}");
        assert!(hint.unwrap().starts_with("say which"));
    }
    // A socket on all addresses is probed on the loopback address that is there.
    let url = format!("http://[::1]:{}/", port(&both));
    assert!(listeners.holds(pid, &url, &group(&[])).unwrap());
    let without = Listeners {
        has_ipv6_loopback: false,
        ..listeners
    };
    let url = format!("http://127.0.0.1:{}/", port(&both));
    assert!(without.holds(pid, &url, &group(&[])).unwrap());
}

#[test]
fn one_port_on_both_families_is_one_endpoint() {
    let addresses = |text: &str| -> Vec<Address> {
        words(text)
            .iter()
            .map(|address| Address::Tcp(address.parse().unwrap()))
            .collect()
    };
    assert_eq!(
        without_twins(addresses("0.0.0.0:80 [::]:80 127.0.0.1:81 [::1]:81")),
        addresses("0.0.0.0:80 127.0.0.1:81")
    );
    let several = addresses("0.0.0.0:80 [::]:81 [::1]:80 127.0.0.1:82 [::]:82");
    assert_eq!(without_twins(several.clone()), several);
}

#[test]
fn an_option_says_an_address_in_every_spelling() {
    let fits = |addr: &str, value: &str| {
        Address::Tcp(addr.parse().unwrap())
            .fits(&"{arg:-l}".parse().unwrap(), &words(&format!("-l {value}")))
    };
    for value in ["80", ":80", "0.0.0.0:80", "[::]:80", "localhost:80", "*:80"] {
        assert!(fits("[::]:80", value) && !fits("[::]:81", value), "{value}");
    }
    assert!(
        fits("127.0.0.2:80", "127.0.0.2:80")
            && !fits("127.0.0.1:80", "127.0.0.2:80")
            && !fits("[::]:80", "x")
    );
    let unix = Address::Unix("/run/x.sock".into());
    assert!(
        unix.is_named_by("/run/x.sock")
            && unix.is_named_by("unix:/run/x.sock")
            && !unix.is_named_by("80")
    );
}

#[test]
fn the_scheme_is_that_of_the_assertions() {
    let with = |confirm: &str| {
        let mut group = Group {
            speaks: Speaks::None,
            reject: Vec::new(),
            ..group(&[])
        };
        group.confirm = vec![
            toml::from_str::<crate::assertion::RawAssertion>(confirm)
                .map(crate::assertion::Assertion::try_from)
                .unwrap()
                .unwrap(),
        ];
        scheme(&group)
    };
    assert_eq!(
        with("http = \"https://{listen}/\"\nequals = \"x\""),
        "https"
    );
    assert_eq!(with("http = \"http://{listen}/\"\nequals = \"x\""), "http");
    assert_eq!(
        with("exec = [\"psql\", \"{listen.host}\"]\nequals = \"x\""),
        "tcp"
    );
}

fn denied() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error())
}

/// Returns what is known of a process that listens on `port` itself, with one descendant that
/// cannot be read.
fn partly_read(port: u16) -> (Listeners, Addresses) {
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
    let listeners = Listeners {
        sockets: HashMap::from([(17, Some(address))]),
        ..Listeners::default()
    };
    let read = |pid| Err(SocketsError::Descendant(pid, denied()));
    let addresses = listeners.addresses_of(vec![17], Ok(vec![5, 6]), read);
    (listeners, addresses)
}

#[test]
fn a_descendant_that_cannot_be_read_may_listen_anywhere() {
    let (_, addresses) = partly_read(80);
    let unread = addresses.has(|_| false).unwrap_err().to_string();
    assert_eq!(
        unread,
        "the sockets of pid 6, which it started, cannot be read: Permission denied (os error 13)"
    );
    let (_, addresses) = partly_read(80);
    assert!(addresses.has(|_| true).unwrap(), "what is known counts");
}

#[test]
fn children_that_cannot_be_listed_may_listen_anywhere() {
    let listeners = Listeners::default();
    let addresses = listeners.addresses_of(Vec::new(), Err(denied()), |_| Ok(Vec::new()));
    assert!(matches!(addresses.unread, Some(SocketsError::Children(_))));
}

#[test]
fn an_address_is_the_only_one_only_if_every_socket_was_read() {
    let endpoint = |listen: &[&str]| {
        let (listeners, Addresses { known, unread }) = partly_read(80);
        listeners.chosen(known, unread, &[], &group(listen))
    };
    let Refusal { why, hint } = endpoint(&[]).unwrap_err();
    assert!(matches!(why, EndpointError::Sockets(_)), "{why}");
    assert!(hint.unwrap().starts_with("run `hello` as root"));
    assert_eq!(endpoint(&["tcp:80"]).unwrap(), "http://127.0.0.1:80/");
}

#[test]
fn a_process_that_this_user_may_not_inspect_is_in_no_other_network() {
    use crate::tests::unprivileged::{HIDDEN, unprivileged};
    let why = unprivileged(|| sockets_of(HIDDEN)).unwrap_err();
    assert!(matches!(why, SocketsError::Unreadable(_)), "{why}");
    let listeners = Listeners::default();
    let is_deaf = unprivileged(|| listeners.is_deaf(HIDDEN, &[], &group(&["tcp:80"])));
    assert!(!is_deaf, "it may listen");
    let missing = unprivileged(|| listeners.missing(HIDDEN, &[], &group(&["tcp:80"])));
    assert_eq!(missing, None);
}
