#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

fn names(raw: &[u8]) -> Option<Vec<String>> {
    Some(
        passed_on(parse(raw)?, "/bin")
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect(),
    )
}

#[test]
fn variables_of_the_instance_alone_are_not_passed_on() {
    let raw = b"A=1\0NOTIFY_SOCKET=/x\0WATCHDOG_USEC=1\0LISTEN_FDS=2\0NGINX=5;\0\
        GUNICORN_FD=3\0HAPROXY_MWORKER_REEXEC=1\0HAPROXY_CLI=x\0B=\0C=a=b\0";
    assert_eq!(
        names(raw).unwrap(),
        ["A=1", "HAPROXY_CLI=x", "B=", "C=a=b", "PATH=/bin"]
    );
    assert_eq!(
        names(b"PATH=/x\0BASH_FUNC_f%%=() {\n}\0").unwrap(),
        ["PATH=/x", "BASH_FUNC_f%%=() {\n}"]
    );
    assert_eq!(names(b"").unwrap(), ["PATH=/bin"]);
}

#[test]
fn an_environment_differs_if_a_variable_that_a_config_may_read_differs() {
    let of = |raw: &[u8]| identity_of(parse(raw).unwrap());
    let one = of(b"PORT=1\0A=2\0INVOCATION_ID=x\0NOTIFY_SOCKET=/x\0");
    assert_eq!(one, of(b"A=2\0PORT=1\0INVOCATION_ID=y\0SHLVL=3\0"));
    for other in [
        &b"PORT=2\0A=2\0"[..],
        b"PORT=1\0",
        b"PORT=1\0A=2\0B=\0",
        b"",
    ] {
        assert_ne!(one, of(other));
    }
}

#[test]
fn a_process_title_is_not_an_environment() {
    for raw in [
        "\0\0\0",
        "s nginx -c /x\0\0\0",
        "/bin\0HOME=/\0",
        "tail of=a value\0HOME=/\0",
        "0:di=01;34\0A=1\0",
        "A=1\0\0B=2\0",
        "A=1\0B=2",
        "=x\0",
    ] {
        assert_eq!(names(raw.as_bytes()), None, "{raw:?}");
    }
}

#[test]
fn secret_values_are_masked_and_others_are_shown() {
    let all =
        parse(b"TOKEN=s3cret\0LONGER=s3cret-too\0HOME=/root\0N=1\0KEY=-----BEGIN\nabcdefghij\n\0")
            .unwrap();
    let environment = Environment::of(all);
    let masked = |text: &str| {
        let mut text = text.as_bytes().to_vec();
        environment.mask(&mut text);
        String::from_utf8(text).unwrap()
    };
    assert_eq!(
        masked("a s3cret, s3cret-too, /root and 1"),
        "a ***, ***, /root and 1"
    );
    assert_eq!(masked("line: abcdefghij"), "line: ***");
    let mut text = b"a s3cret of s3cret-too".to_vec();
    let argv = [&b"run"[..], b"--with=s3cret-too"];
    environment.without(argv.into_iter()).mask(&mut text);
    assert_eq!(text, b"a *** of ***-too");
    let all = "DB=postgres://app:pass%40word@db/x?sslkey=hidden1&a=1\0LOGIN=admin \
               Geheim88word\0DSN=host=db password=kurz1\0\
               OPTS=-c /etc/x.conf --verbose\0JSON={\"token\":\"longsecret\"}\0";
    let environment = Environment::of(parse(all.as_bytes()).unwrap());
    let masked = |text: &str| {
        let mut text = text.as_bytes().to_vec();
        environment.mask(&mut text);
        String::from_utf8(text).unwrap()
    };
    assert_eq!(
        masked("pass%40word pass@word hidden1 Geheim88word kurz1 longsecret"),
        "*** *** *** *** *** ***"
    );
    assert_eq!(
        masked("app at db, /etc/x.conf, --verbose"),
        "app at db, /etc/x.conf, --verbose"
    );
    assert_eq!(masked(""), "");
}
