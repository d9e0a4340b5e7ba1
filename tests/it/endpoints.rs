//! Valid answers: error pages, credentials, long and slow answers, and the report about an answer
//! without proof.

use std::{os::unix::fs::PermissionsExt, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{assertions::Daemon, support::write};

const LISTEN: &str = "listen = \"127.0.0.1:0\"";

/// Returns an assertion over HTTP at `path`.
fn http(path: &str, rest: &str) -> String {
    format!("[[group.confirm]]\nhttp = \"http://{{listen}}{path}\"\n{rest}\n")
}

/// Returns the same as `[[group.reject]]`.
fn reject(path: &str, rest: &str) -> String {
    http(path, rest).replace("confirm", "reject")
}

const SEEN: &str = "equals = \"{candidate.message}\"";

/// Whether a secret is in anything that the runs of a daemon printed or kept.
fn leaks(daemon: &Daemon, result: &str, secret: &str) -> bool {
    fn within(dir: &Path, secret: &str) -> bool {
        let Ok(all) = std::fs::read_dir(dir) else {
            return false;
        };
        all.flatten().any(|entry| {
            let path = entry.path();
            let holds = || {
                String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).contains(secret)
            };
            if path.is_dir() {
                within(&path, secret)
            } else {
                holds()
            }
        })
    }
    result.contains(secret) || within(&daemon.path("state"), secret)
}

/// Writes a file that only its owner may read.
fn private(daemon: &Daemon, name: &str, text: &str) -> String {
    let path = write(&daemon.path(name), text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn an_error_page_before_the_run_is_refused() {
    let daemon = Daemon::start(LISTEN, &[]);
    let seen = http("/", SEEN);
    for (facts, says) in [
        (http("/missing", SEEN), "answers 404 Not Found"),
        (
            http("/missing", "read = \"json:/x\"\nchanged = true"),
            "answers 404",
        ),
        (
            http("/missing", "read = \"metric:loaded\"\nafter_signal = true"),
            "answers 404",
        ),
        (
            http("/missing", "read = \"header:X-None\"\nchanged = true"),
            "answers 404",
        ),
        (
            http("/moved", "contains = \"else\""),
            "answers 302 Found (Location: http://**********@elsewhere.test/x)",
        ),
        (
            http("/metrics", "read = \"metric:nope\"\nafter_signal = true"),
            "has no metric `nope`",
        ),
        (
            http("/metrics", "read = \"metric:nope\"\nequals = \"1\""),
            "has no metric `nope`",
        ),
        (
            http("/json", "read = \"json:/nope\"\nafter_signal = true"),
            "has no value at `/nope`",
        ),
        (
            http("/", "read = \"json:/nope\"\nequals = \"1\""),
            "has no value at `/nope`",
        ),
        (
            seen.clone() + &reject("/missing", "contains = \"x\""),
            "answers 404",
        ),
        (
            seen.clone() + &reject("/metrics", "read = \"metric:nope\"\nincreased = true"),
            "has no metric `nope`",
        ),
        (http("/", &format!("{SEEN}\nstatus = 204")), "expects 204"),
    ] {
        daemon.refuses(&facts, &[says]);
    }
    // The status itself may be asserted, and so may the page of another status.
    let status =
        |path: &str, status: u16| http(path, &format!("read = \"status\"\nequals = \"{status}\""));
    let page = http("/missing", "status = 404\ncontains = \"no such\"")
        + &http("/moved", "read = \"header:Location\"\ncontains = \"test\"");
    // An error page has the headers of its server.
    let page = page
        + &http(
            "/missing",
            "read = \"header:Content-Length\"\ncontains = \"1\"",
        );
    let waits = reject("/json", "read = \"json:/fault\"\nequals = \"1\"")
        + &http(
            "/metrics",
            "read = 'metric:loaded{of=\"config\"}'\nafter_signal = true",
        );
    let facts = seen + &status("/missing", 404) + &status("/moved", 302) + &page + &waits;
    daemon.broadcast(&facts, &["message=two"]).expect(0);
}

#[test]
fn an_error_page_after_the_signal_proves_nothing_and_is_named() {
    let daemon = Daemon::start(&format!("{LISTEN}\npage = \"one\""), &[]);
    let page = http("/page", "contains = \"two\"");
    // The proof of the rollback is tested elsewhere.
    let fails = |facts: &str, set: &[&str]| {
        let result = daemon.unproven(facts, set);
        assert!(
            result.code == 6 || result.code == 7,
            "{}: {}",
            result.code,
            result.stderr
        );
        result.stderr
    };
    let text = fails(
        &page,
        &["message=two", "page=two of an error", "status=503"],
    );
    assert!(
        text.contains("/page answers 503 Service Unavailable after"),
        "{text}"
    );
    let text = fails(&page, &["message=three", "page=three\nof many"]);
    assert!(
        text.contains("reads `three\\nof many`, and wanted is `two` in it"),
        "{text}"
    );
    // An answer made from a secret config is as secret.
    let text = fails(
        &format!("secret = true\n{page}"),
        &["message=four", "page=geheim"],
    );
    assert!(!leaks(&daemon, &text, "reads `geheim"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn credentials_come_from_files_that_others_may_neither_change_nor_read() {
    let daemon = Daemon::start(&format!("{LISTEN}\nasks = \"Basic b3BzOmdlaGVpbQ==\""), &[]);
    let (auth, open) = (
        private(&daemon, "auth", "ops:geheim\n"),
        private(&daemon, "open", "ops:geheim\n"),
    );
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let with = |key: &str, path: &str| http("/", &format!("{SEEN}\n{key} = \"{path}\""));
    daemon.refuses(
        &http("/", SEEN),
        &[
            "answers 401 Unauthorized (WWW-Authenticate: Basic realm=here)",
            "auth_file",
        ],
    );
    daemon.refuses(&with("bearer_file", &auth), &["answers 401"]);
    daemon.refuses(
        &with("auth_file", &open),
        &["auth_file", "can be read by every user", "chmod o-r"],
    );
    daemon.refuses(
        &with("auth_file", "/nonexistent"),
        &["auth_file `/nonexistent`"],
    );
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o620)).unwrap();
    daemon.refuses(&with("auth_file", &open), &["does not count", "chmod go-w"]);
    let result = daemon
        .broadcast(&with("auth_file", &auth), &["message=two"])
        .expect(0);
    assert!(!leaks(
        &daemon,
        &(result.stderr + &result.json.to_string()),
        "geheim"
    ));
    // Set once for the group. A new token is read from the same file.
    let token = private(&daemon, "token", "abc.def\n");
    let command = format!(
        "[[group.confirm]]\nexec = [\"cat\", \"{}.runs\"]\n{SEEN}",
        daemon.path("daemon.toml").display()
    );
    daemon
        .broadcast(&command, &["message=three", "asks=Bearer abc.def"])
        .expect(0);
    daemon
        .broadcast(
            &format!("bearer_file = \"{token}\"\n{}", http("/", SEEN)),
            &["message=one"],
        )
        .expect(0);
}

#[test]
fn a_client_shows_its_certificate() {
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // With the same name as its issuer it would count as self-signed.
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
    let (server, client) = (key(), key());
    let signed = |name: &str, key: &KeyPair| {
        CertificateParams::new(vec![name.into()])
            .unwrap()
            .signed_by(key, &authority)
            .unwrap()
            .pem()
    };
    let (web, own) = (signed("127.0.0.1", &server), signed("client.test", &client));

    let daemon = Daemon::start(LISTEN, &[]);
    let ca = private(&daemon, "ca.pem", &authority.pem());
    let pem = private(&daemon, "web.pem", &(web + &server.serialize_pem()));
    let (cert, secret) = (
        private(&daemon, "cert.pem", &own),
        private(&daemon, "key.pem", &client.serialize_pem()),
    );
    let command = format!(
        "[[group.confirm]]\nexec = [\"cat\", \"{}.runs\"]\n{SEEN}",
        daemon.path("daemon.toml").display()
    );
    daemon
        .broadcast(
            &command,
            &[
                "message=zero",
                &format!("tls={pem}"),
                &format!("clients={ca}"),
            ],
        )
        .expect(0);
    daemon.broadcast(&command, &["message=one"]).expect(0);
    let https = |more: &str| {
        http("/", &format!("{SEEN}\nca = \"{ca}\"\n{more}")).replace("http://", "https://")
    };
    daemon.refuses(&https(""), &["https://"]);
    daemon.refuses(
        &https(&format!("client_cert = \"{cert}\"\nclient_key = \"{ca}\"")),
        &["client_key", "private key"],
    );
    let shows = format!("client_cert = \"{cert}\"\nclient_key = \"{secret}\"");
    daemon.broadcast(&https(&shows), &["message=two"]).expect(0);
    daemon
        .broadcast(&format!("{shows}\n{}", https("")), &["message=three"])
        .expect(0);
}

#[test]
fn a_password_in_a_url_is_refused_with_its_line_and_never_shown() {
    let daemon = Daemon::start(LISTEN, &[]);
    let seen = http("/", SEEN);
    for facts in [
        seen.replace("http://", "http://ops:geheim@"),
        seen.replace("http://", "https://ops:ge/heim@"),
        seen.replace("http://", "http://ops\\u003ageheim@"),
        seen.replace("http://", "http:ops:geheim@"),
        seen.replace("http://", "ops:geheim@"),
        format!(
            "instances = [{{ pid = 1, endpoint = \"http://ops:geheim@127.0.0.1:1/\" }}]\n{seen}"
        ),
        format!("validate = [\"curl\", \"http://ops:geheim@x.test/\"]\n{seen}"),
        "[[group.confirm]]\nexec = ['psql', 'postgresql://ops:geheim@h/d']\nchanged = true".into(),
        format!("{seen}[group.rollout]\ngate = ['curl', 'https://ops:geheim@x.test/']"),
    ] {
        let result = daemon.broadcast(&facts, &["message=two"]).expect(2);
        assert!(
            result.stderr.contains("fleet.toml"),
            "{facts}: {}",
            result.stderr
        );
        assert!(
            result.stderr.contains("line "),
            "{facts}: {}",
            result.stderr
        );
        assert!(
            !leaks(&daemon, &result.stderr, "heim@"),
            "{facts}: {}",
            result.stderr
        );
        assert!(
            !result.stderr.contains("geheim"),
            "{facts}: {}",
            result.stderr
        );
    }
    assert_eq!(daemon.runs(), "one");
}

#[test]
fn an_answer_may_be_long_and_slow() {
    // More than 3 MiB of other samples, and more than a second before each answer.
    let daemon = Daemon::start(&format!("{LISTEN}\nmany = 100000\nslow = 1.2"), &[]);
    let facts = http(
        "/metrics",
        "read = \"metric:reloads_total\"\nincreased = true",
    ) + &http("/metrics", "read = \"metric:loaded\"\nafter_signal = true");
    let result = daemon
        .broadcast(&format!("samples = 1\n{facts}"), &["message=two"])
        .expect(0);
    assert_eq!(result.json["instances"][0]["proof"], "reloaded");
    let body = http("/metrics", "contains = \"reloads_total 2\"");
    daemon
        .broadcast(
            &format!("samples = 1\n{body}"),
            &["message=three", "slow=0"],
        )
        .expect(0);
}

#[test]
fn a_file_that_the_process_may_not_read_any_more_is_refused() {
    if !crate::users::is_root() {
        return;
    }
    let mut command = std::process::Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--",
        "/usr/bin/python3",
    ]);
    // The daemon writes its state beside its config.
    let state = |dir: &Path| {
        let runs = write(&dir.join("daemon.toml.runs"), "");
        std::os::unix::fs::chown(runs, Some(65534), Some(65534)).unwrap();
    };
    let daemon = Daemon::start_by(command, LISTEN, &[], state);
    let config = daemon.path("daemon.toml");
    let set = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    let facts = format!(
        "user = [\"65534\"]\nconfig_under = \"{}\"\n{}",
        daemon.fleet.dir.path().display(),
        http("/", SEEN)
    );
    set(&config, 0o600);
    daemon.refuses(
        &facts,
        &["may not read `", "daemon.toml", "mode 0600", "uid 65534"],
    );
    let doctor = daemon.fleet.doctor(&[&daemon.pid().to_string()]);
    assert!(
        doctor.json.to_string().contains("may not read"),
        "{:#}",
        doctor.json
    );
    std::os::unix::fs::chown(&config, Some(0), Some(65534)).unwrap();
    set(&config, 0o604);
    daemon.refuses(&facts, &["may not read `", "mode 0604"]);
    set(&config, 0o640);
    daemon.broadcast(&facts, &["message=two"]).expect(0);
}

#[test]
fn placeholders_for_yaml_and_json_keys_and_the_digest_are_filled_in() {
    let daemon = Daemon::start(LISTEN, &[]);
    let seen = |text: &str| http("/", &format!("equals = \"{text}\""));
    let digest = "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"sha256sum <$0 | cut -d ' ' -f 1\", \"{arg:2}\"]\nequals = \"{candidate.sha256}\"";
    daemon
        .broadcast(
            &format!("{}\n{digest}", seen("{candidate.message}")),
            &["message=two"],
        )
        .expect(0);
    for (facts, line, says) in [
        (
            seen("{candidat.message}"),
            10,
            "did you mean `{candidate.message}`?",
        ),
        (seen("{candidate}"), 10, "`{candidate.KEY}`"),
        (seen("x {candidate.message"), 10, "has no `}`"),
        (http("/{lisen}", SEEN), 9, "no placeholder `{lisen}`"),
        (
            http("/", SEEN).replace("{listen}", "{listen_host}"),
            9,
            "no placeholder `{listen_host}`",
        ),
    ] {
        let result = daemon.broadcast(&facts, &["message=three"]).expect(2);
        assert!(result.stderr.contains(says), "{facts}: {}", result.stderr);
        assert!(
            result.stderr.contains("fleet.toml"),
            "{facts}: {}",
            result.stderr
        );
        assert!(
            result.stderr.contains(&format!("line {line}, ")),
            "{facts}: {}",
            result.stderr
        );
    }
}
