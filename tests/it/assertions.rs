//! Every way to confirm a config of a program that does not know `hello`: endpoints, readings and
//! proofs.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::{CommandResult, Fleet, until};

/// `daemon.py`, killed by pid when the test ends. Its workers end with it.
pub(crate) struct Daemon {
    pub(crate) fleet: Fleet,
    child: Child,
}

/// The assertion that the answer is the message of the new config.
const SEEN: &str =
    "[[group.confirm]]\nhttp = \"http://{listen}/\"\nequals = \"{candidate.message}\"";
const WORKERS: &str = "[[group.confirm]]\nworkers = true\nreplaced = true";

impl Daemon {
    /// Starts the daemon with `config` besides its message, and `args` on its command line.
    pub(crate) fn start(config: &str, args: &[&str]) -> Self {
        Self::start_by(Command::new("python3"), config, args, |_| {})
    }

    /// Does the same with another command. `prepare` may change the folder before that.
    pub(crate) fn start_by(
        mut command: Command,
        config: &str,
        args: &[&str],
        prepare: impl FnOnce(&std::path::Path),
    ) -> Self {
        let fleet = Fleet::start(0);
        std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        fleet.write("daemon.py", include_str!("daemon.py"));
        fleet.write("daemon.toml", &format!("message = \"one\"\n{config}\n"));
        prepare(fleet.dir.path());
        let mut child = command
            .arg(fleet.path("daemon.py"))
            .arg(fleet.path("daemon.toml"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let daemon = Self { fleet, child };
        let (tell, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send(line.ends_with('\n'));
        });
        assert_eq!(
            heard.recv_timeout(Duration::from_secs(30)),
            Ok(true),
            "it says that it listens"
        );
        until("it runs its config", || daemon.runs() == "one");
        daemon
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Returns the message that it serves.
    pub(crate) fn runs(&self) -> String {
        std::fs::read_to_string(self.path("daemon.toml.runs"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.fleet.path(name)
    }

    fn children(&self) -> Vec<i32> {
        let pid = self.pid();
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        list.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// Writes a group of this daemon alone with these assertions or other keys.
    pub(crate) fn group(&self, facts: &str) {
        let (script, config) = (self.path("daemon.py"), self.path("daemon.toml"));
        self.fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"d\"\nmatch = {{ args = [\"{}\"] }}\nconfig = \"{}\"\nreloads = true\ntimeout = \"20s\"\n{facts}\n", script.display(), config.display()), );
    }

    pub(crate) fn broadcast(&self, facts: &str, set: &[&str]) -> CommandResult {
        self.group(facts);
        let args: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        self.fleet.broadcast(&args)
    }

    /// Writes the group with a short timeout, for a proof that must not come.
    pub(crate) fn unproven(&self, facts: &str, set: &[&str]) -> CommandResult {
        self.group(facts);
        let mut args: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        args.extend(["--timeout", "2500ms"]);
        self.fleet.broadcast(&args)
    }

    /// Checks that a run is refused with these words and touches nothing.
    pub(crate) fn refuses(&self, facts: &str, says: &[&str]) {
        let before = std::fs::read(self.path("daemon.toml")).unwrap();
        let result = self.broadcast(facts, &["message=refused"]).expect(5);
        assert!(
            says.iter().all(|word| result.stderr.contains(word)),
            "{says:?}: {}",
            result.stderr
        );
        assert_eq!(
            (
                std::fs::read(self.path("daemon.toml")).unwrap(),
                self.runs()
            ),
            (before, "one".to_owned())
        );
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(left) = std::fs::read_to_string(self.path("daemon.toml.left"))
            .ok()
            .and_then(|pid| pid.parse().ok())
        {
            let _ = kill(Pid::from_raw(left), Signal::SIGKILL);
        }
    }
}

/// Returns the only instance of a run.
fn only_instance(result: &CommandResult) -> &serde_json::Value {
    let instances = result.json["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 1, "{:#}", result.json);
    &instances[0]
}

fn proof(result: &CommandResult) -> (&str, &str) {
    (
        only_instance(result)["outcome"].as_str().unwrap(),
        only_instance(result)["proof"].as_str().unwrap_or_default(),
    )
}

/// Returns a port that no other test has, below the range of ephemeral ports.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports
        .take(2000)
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .unwrap()
}

#[test]
fn https_needs_a_trusted_authority_and_the_right_name() {
    let key = || KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
    let (signed, own) = (key(), key());
    let certificate = CertificateParams::new(vec!["web.test".into()])
        .unwrap()
        .signed_by(&signed, &authority)
        .unwrap();
    // As `openssl req -x509` makes one: a certificate that is its own authority.
    let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let itself = params.self_signed(&own).unwrap();

    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    let pem = daemon
        .fleet
        .write("web.pem", &(certificate.pem() + &signed.serialize_pem()));
    let ca = daemon.fleet.write("ca.pem", &authority.pem());
    let itself = daemon
        .fleet
        .write("itself.pem", &(itself.pem() + &own.serialize_pem()));
    let fact = |more: &str| {
        format!(
            "[[group.confirm]]\nhttp = \"https://{{listen}}/\"\nequals = \"{{candidate.message}}\"\n{more}"
        )
    };
    // Its first config has no TLS. The reload brings TLS, which a command observes.
    let runs = format!(
        "[[group.confirm]]\nexec = [\"cat\", \"{}\"]\nequals = \"{{candidate.message}}\"",
        daemon.path("daemon.toml.runs").display()
    );
    let serves = |pem: &PathBuf, message: &str| {
        daemon
            .broadcast(&runs, &[&format!("tls={}", pem.display()), message])
            .expect(0);
    };
    serves(&pem, "message=zero");

    let by_authority = format!("ca = \"{}\"\nhost = \"web.test\"", ca.display());
    let result = daemon
        .broadcast(&fact(&by_authority), &["message=two"])
        .expect(0);
    assert_eq!(proof(&result), ("confirmed", "content"));
    assert!(
        only_instance(&result)["endpoint"]
            .as_str()
            .unwrap()
            .starts_with("https://127.0.0.1:"),
        "{}",
        result.stderr
    );
    assert!(!result.stderr.contains("Insecure"), "{}", result.stderr);
    let result = daemon
        .broadcast(&fact("insecure = true"), &["message=one"])
        .expect(0);
    assert!(
        result
            .stderr
            .contains("Insecure d: the certificate of https://{listen}/ is not checked"),
        "{}",
        result.stderr
    );
    daemon.refuses(
        &fact(&format!("ca = \"{}\"\nhost = \"other.test\"", ca.display())),
        &["not valid for name"],
    );
    daemon.refuses(
        &fact(&format!("ca = \"{}\"", ca.display())),
        &["not valid for", "`host`"],
    );
    daemon.refuses(
        &fact(&format!(
            "ca = \"{}\"\nhost = \"web.test\"",
            itself.display()
        )),
        &["UnknownIssuer"],
    );
    // Whatever this host trusts, it does not trust this authority.
    daemon.refuses(&fact("host = \"web.test\""), &["https://", "`ca`"]);
    daemon.refuses(
        &fact("ca = \"/nonexistent.pem\""),
        &["ca `/nonexistent.pem`"],
    );
    daemon.refuses(
        &fact(&format!(
            "ca = \"{}\"",
            daemon.path("daemon.toml").display()
        )),
        &["does not hold certificates in PEM"],
    );
    // A self-signed certificate is trusted where it is named itself, for its own names.
    serves(&itself, "message=four");
    serves(&itself, "message=one");
    daemon.refuses(
        &fact(&format!(
            "ca = \"{}\"\nhost = \"web.test\"",
            itself.display()
        )),
        &["not valid for name"],
    );
    daemon
        .broadcast(
            &fact(&format!("ca = \"{}\"", itself.display())),
            &["message=three"],
        )
        .expect(0);
}

#[test]
fn the_host_that_an_assertion_names_is_sent_in_the_request() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    let fact = |host: &str| {
        format!(
            "samples = 1\n{SEEN}\n[[group.confirm]]\nhttp = \"http://{{listen}}/host\"\nhost = \"{host}\"\nequals = \"web.test:81\""
        )
    };
    daemon
        .broadcast(&fact("web.test:81"), &["message=two"])
        .expect(0);
    let result = daemon
        .unproven(&fact("web.test"), &["message=three"])
        .expect(7);
    assert_eq!(
        only_instance(&result)["outcome"],
        "revert_failed",
        "it never shows the wanted answer, not in the rollback either"
    );
}

#[test]
fn a_unix_socket_is_selected_and_probed() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.sock"), dir.path().join(".s.PGSQL.5432"));
    let daemon = Daemon::start(
        &format!(
            "listen = [\"unix:{}\", \"unix:{}\"]",
            first.display(),
            second.display()
        ),
        &[],
    );
    daemon.refuses(
        SEEN,
        &["listens on", "a.sock", ".s.PGSQL.5432", "say which"],
    );
    let result = daemon
        .broadcast(
            &format!("listen = \"unix:/*/a.sock\"\n{SEEN}"),
            &["message=two"],
        )
        .expect(0);
    assert_eq!(
        (
            proof(&result),
            only_instance(&result)["endpoint"].as_str().unwrap()
        ),
        (
            ("confirmed", "content"),
            &*format!("unix:{}", first.display())
        )
    );
    // The name that `psql` expects of such a socket.
    let words = format!("{} 5432", dir.path().display());
    let fact = "[[group.confirm]]\nexec = [\"echo\", \"{listen.host} {listen.port}\"]\n";
    daemon
        .broadcast(
            &format!("listen = \"unix:/*.s.PGSQL.*\"\n{SEEN}\n{fact}equals = \"{words}\""),
            &["message=three"],
        )
        .expect(0);
}

#[test]
fn the_first_entry_that_matches_exactly_one_socket_selects_the_endpoint() {
    let (web, other) = (free_port(), free_port());
    let daemon = Daemon::start(
        &format!("listen = [\"0.0.0.0:{web}\", \"127.0.0.1:{other}\", \"127.0.0.2:{other}\"]"),
        &["--web", &format!(":{web}")],
    );
    let (web, other) = (format!("127.0.0.1:{web}"), format!("tcp:{other}"));
    daemon.refuses(SEEN, &[&web, "say which"]);
    daemon.refuses(
        &format!("listen = [\"tcp:1\", \"{other}\"]\n{SEEN}"),
        &[&web, "none or several"],
    );
    let result = daemon
        .broadcast(
            &format!(
                "listen = [\"tcp:1\", \"{other}\", \"{{arg:--none}}\", \"{{arg:--web}}\"]\n{SEEN}"
            ),
            &["message=two"],
        )
        .expect(0);
    assert_eq!(only_instance(&result)["endpoint"], format!("http://{web}/"));
    // A group without a probe there needs none.
    let exit = "[[group.confirm]]\nexec = [\"grep\", \"-q\", \"three\", \"{config}.runs\"]\nread = \"exit\"\nequals = \"0\"";
    let result = daemon.broadcast(exit, &["message=three"]).expect(0);
    // A literal need not hold before. That it did not hold is reported and recorded.
    assert!(result.stderr.contains("Failing"), "{}", result.stderr);
    assert!(
        result.stderr.contains("reads `1`, and wanted is `0`"),
        "{}",
        result.stderr
    );
    assert_eq!(
        result.json["notes"][0]["event"], "not_held_before",
        "{:#}",
        result.json
    );
    assert_eq!(
        (proof(&result), &only_instance(&result)["endpoint"]),
        (("confirmed", "content"), &serde_json::Value::Null)
    );
}

#[test]
fn both_address_families_are_probed_on_loopback() {
    let port = free_port();
    let daemon = Daemon::start(
        &format!("listen = [\"0.0.0.0:{port}\", \"[::]:{port} only\"]"),
        &[],
    );
    let result = daemon.broadcast(SEEN, &["message=two"]).expect(0);
    assert_eq!(
        only_instance(&result)["endpoint"],
        format!("http://127.0.0.1:{port}/"),
        "one port on both is one endpoint"
    );
    let daemon = Daemon::start("listen = \"[::]:0\"", &[]);
    let result = daemon.broadcast(SEEN, &["message=two"]).expect(0);
    assert!(
        only_instance(&result)["endpoint"]
            .as_str()
            .unwrap()
            .starts_with("http://[::1]:"),
        "{:#}",
        result.json
    );
}

#[test]
fn the_sockets_of_children_count_as_the_instance_s_own() {
    let port = free_port();
    let daemon = Daemon::start(
        &format!("listen = \"127.0.0.1:{port}\"\nworkers = 1\nalone = true"),
        &[],
    );
    until("its worker listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let result = daemon
        .broadcast(&format!("{SEEN}\n{WORKERS}"), &["message=two"])
        .expect(0);
    assert_eq!(
        (
            proof(&result),
            only_instance(&result)["endpoint"].as_str().unwrap()
        ),
        (
            ("confirmed", "content"),
            &*format!("http://127.0.0.1:{port}/")
        )
    );
}

#[test]
fn a_port_change_is_followed_in_both_directions() {
    let (first, second, third) = (free_port(), free_port(), free_port());
    let daemon = Daemon::start(&format!("listen = \"127.0.0.1:{first}\""), &[]);
    let url = |port: u16| format!("http://127.0.0.1:{port}/");
    let result = daemon
        .broadcast(
            SEEN,
            &["message=two", &format!("listen=127.0.0.1:{second}")],
        )
        .expect(0);
    assert_eq!(
        (
            proof(&result),
            &only_instance(&result)["endpoint"],
            &only_instance(&result)["moved_from"]
        ),
        (
            ("confirmed", "content"),
            &url(second).into(),
            &url(first).into()
        )
    );
    assert!(
        result.stderr.contains(&format!(
            "{} moved to {} by content",
            url(first),
            url(second)
        )),
        "{}",
        result.stderr
    );
    // It moves and does not show the wanted answer. It is rolled back and proven at its old port.
    let result = daemon
        .unproven(
            SEEN,
            &[
                "message=three",
                "answers=wrong",
                &format!("listen=127.0.0.1:{third}"),
            ],
        )
        .expect(6);
    assert_eq!(
        (
            only_instance(&result)["outcome"].as_str().unwrap(),
            &only_instance(&result)["endpoint"]
        ),
        ("reverted", &url(second).into())
    );
    assert_eq!(
        (&only_instance(&result)["moved_from"], daemon.runs()),
        (&serde_json::Value::Null, "two".to_owned())
    );
}

#[test]
fn an_answer_of_another_process_at_the_old_endpoint_is_no_proof() {
    let (first, second) = (free_port(), free_port());
    let daemon = Daemon::start(&format!("listen = \"127.0.0.1:{first}\""), &[]);
    let result = daemon
        .unproven(
            SEEN,
            &[
                "message=two",
                "answers=wrong",
                "leaves=two",
                &format!("listen=127.0.0.1:{second}"),
            ],
        )
        .expect(6);
    assert_eq!(
        (
            only_instance(&result)["outcome"].as_str().unwrap(),
            &only_instance(&result)["failure"]["kind"]
        ),
        ("reverted", &"timed_out".into()),
        "{:#}",
        result.json
    );
    assert_eq!(
        (&only_instance(&result)["endpoint"], daemon.runs()),
        (
            &format!("http://127.0.0.1:{first}/").into(),
            "one".to_owned()
        )
    );
}

#[test]
fn an_answer_after_the_end_of_the_instance_is_no_proof() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    let result = daemon
        .broadcast(SEEN, &["message=two", "ends=two"])
        .expect(7);
    assert_eq!(
        (
            only_instance(&result)["outcome"].as_str().unwrap(),
            &only_instance(&result)["proof"]
        ),
        ("revert_failed", &serde_json::Value::Null)
    );
    // A child that inherited its socket is the successor, and proves nothing.
    assert!(
        only_instance(&result)["successor_of"].is_i64(),
        "{:#}",
        result.json
    );
}

#[test]
fn workers_are_replaced_or_drain_or_stay() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"\nworkers = 3", &[]);
    until("its workers are there", || daemon.children().len() == 3);
    let result = daemon.broadcast(WORKERS, &["message=two"]).expect(0);
    assert_eq!(
        (proof(&result), &only_instance(&result)["draining"]),
        (("confirmed", "workers"), &serde_json::json!([]))
    );
    assert!(result.stderr.contains(" by workers\n"), "{}", result.stderr);
    // Old workers that do not listen any more are named. A stronger assertion makes the proof.
    let old = daemon.children();
    let result = daemon
        .broadcast(
            &format!("{SEEN}\n{WORKERS}"),
            &["message=three", "old=drain"],
        )
        .expect(0);
    assert_eq!(
        (proof(&result), &only_instance(&result)["draining"]),
        (("confirmed", "content"), &serde_json::json!(old))
    );
    let pids: Vec<String> = old.iter().map(|pid| format!("pid {pid}")).collect();
    assert!(
        result
            .stderr
            .contains(&format!(" by content; draining: {}", pids.join(", "))),
        "{}",
        result.stderr
    );
    // An old worker that still listens, or new workers that end at once, prove nothing.
    for bad in ["old=stay", "new=die"] {
        let result = daemon.unproven(WORKERS, &["message=four", bad]).expect(6);
        let (kind, says) = if bad == "old=stay" {
            ("foreign_listener", "an old worker, still listens")
        } else {
            ("timed_out", "its workers are not replaced")
        };
        assert_eq!(
            (proof(&result), &only_instance(&result)["failure"]["kind"]),
            (("reverted", "workers"), &kind.into()),
            "{bad}"
        );
        assert!(result.stderr.contains(says), "{}", result.stderr);
        assert_eq!(daemon.runs(), "three");
    }
}

#[test]
fn a_listening_socket_is_replaced_or_kept() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"\nrebind = true", &[]);
    let listener = "[[group.confirm]]\nlistener = true\nreplaced = true";
    let result = daemon.broadcast(listener, &["message=two"]).expect(0);
    assert_eq!(proof(&result), ("confirmed", "workers"));
    let result = daemon
        .unproven(listener, &["message=three", "rebind=false"])
        .expect(6);
    assert_eq!(proof(&result), ("reverted", "workers"));
    assert!(
        result
            .stderr
            .contains("its listening socket is not replaced"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_worker_in_another_network_namespace_is_not_reported_as_draining() {
    let mut command = Command::new("unshare");
    let net = Command::new("unshare")
        .args(["--net", "true"])
        .stderr(Stdio::null())
        .status();
    if !net.is_ok_and(|status| status.success()) {
        crate::support::skipped("no network namespace is to be had");
        return;
    }
    command.args(["--net", "python3"]);
    let daemon = Daemon::start_by(command, "listen = \"[::]:8080\"\nworkers = 1", &[], |_| {});
    until("its worker is there", || daemon.children().len() == 1);
    daemon.refuses(WORKERS, &["its workers", "another network namespace"]);
    daemon.refuses(SEEN, &["another network namespace"]);
}

#[test]
fn a_probe_command_is_read_by_its_output_and_exit_status() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    let exec = |argv: &str, rest: &str| format!("[[group.confirm]]\nexec = [{argv}]\n{rest}");
    let cat = "\"cat\", \"{config}.runs\"";
    let result = daemon
        .broadcast(
            &exec(cat, "equals = \"{candidate.message}\""),
            &["message=two"],
        )
        .expect(0);
    assert_eq!(proof(&result), ("confirmed", "content"));
    // The whole output, including the line end.
    daemon
        .broadcast(
            &exec(cat, "read = \"body\"\nequals = \"{candidate.message}\\n\""),
            &["message=three"],
        )
        .expect(0);
    let grep = "\"grep\", \"-q\", \"four\", \"{config}.runs\"";
    daemon
        .broadcast(
            &exec(grep, "read = \"exit\"\nequals = \"0\""),
            &["message=four"],
        )
        .expect(0);
    let known = format!("{} {}", daemon.pid(), daemon.path("daemon.toml").display());
    // It held before, so it proves no reload.
    daemon
        .unproven(
            &exec(
                "\"echo\", \"{pid} {config}\"",
                &format!("equals = \"{known}\""),
            ),
            &["message=one"],
        )
        .expect(12);
    until("it runs that", || daemon.runs() == "one");
    // The output of a failed command is no answer, even if it is the wanted one.
    // It reads once: between two reads the daemon may reload.
    let fails = exec(
        "\"sh\", \"-c\", \"text=$(cat $0.runs); echo $text; [ $text = one ]\", \"{config}\"",
        "equals = \"{candidate.message}\"",
    );
    let result = daemon.unproven(&fails, &["message=two"]).expect(7);
    assert!(
        result.stderr.contains("ended with exit status 1"),
        "{}",
        result.stderr
    );
    until("it runs the old one", || daemon.runs() == "one");
    // A command that cannot run, or does not end, is refused before the run.
    daemon.refuses(
        &exec("\"/nonexistent\"", "equals = \"\""),
        &["`/nonexistent`", "could not be run"],
    );
    daemon.group(&exec("\"sleep\", \"60\"", "equals = \"\""));
    // Its time limit is that of the whole proof, and at least 5 s.
    let result = daemon
        .fleet
        .broadcast(&["--set", "message=refused", "--timeout", "1s"])
        .expect(5);
    assert!(
        result.stderr.contains("`sleep` did not end within 5s"),
        "{}",
        result.stderr
    );
    daemon.refuses(
        &exec("\"false\"", "changed = true"),
        &["`false` ended with exit status 1", "could not be seen"],
    );
}

#[test]
fn stamps_counters_and_changes_are_read_in_every_form() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    let url = daemon.broadcast(SEEN, &["message=zero"]).expect(0).json["instances"][0]["endpoint"]
        .as_str()
        .unwrap()
        .to_owned();
    let http = |path: &str, rest: &str| {
        format!("[[group.confirm]]\nhttp = \"http://{{listen}}/{path}\"\n{rest}")
    };
    let script = format!(
        "import urllib.request as u, sys; sys.stdout.write(u.urlopen('{url}' + sys.argv[1]).read().decode())"
    );
    let exec = |path: &str, rest: &str| {
        format!("[[group.confirm]]\nexec = [\"python3\", \"-c\", \"{script}\", \"{path}\"]\n{rest}")
    };
    for (fact, proves) in [
        (
            http("json", "read = \"json:/loaded\"\nafter_signal = true"),
            "reloaded",
        ),
        (
            http(
                "metrics",
                "read = 'metric:loaded{of=\"config\"}'\nafter_signal = true",
            ),
            "reloaded",
        ),
        (
            http(
                "metrics",
                "read = \"metric:reloads_total\"\nincreased = true",
            ),
            "reloaded",
        ),
        (
            http("", "read = \"header:X-Message\"\nchanged = true"),
            "content",
        ),
        (
            exec("json", "read = \"json:/loaded\"\nafter_signal = true"),
            "reloaded",
        ),
        (
            exec(
                "metrics",
                "read = \"metric:reloads_total\"\nincreased = true",
            ),
            "reloaded",
        ),
        (exec("", "changed = true"), "content"),
    ] {
        // The strongest of several assertions is the proof. One that held before the signal is
        // none.
        let result = daemon.broadcast(
            &format!(
                "{fact}\n{}",
                http("", "read = \"status\"\nequals = \"200\"")
            ),
            &[&format!("message={}", daemon.runs() + "x")],
        );
        assert_eq!(proof(&result.expect(0)), ("confirmed", proves), "{fact}");
    }
    let result = daemon
        .broadcast(
            &http("", "read = \"status\"\nequals = \"200\""),
            &["message=last"],
        )
        .expect(12);
    assert_eq!(proof(&result), ("unconfirmed", "none"));
    assert!(
        result.stderr.contains("read the same before its signal"),
        "{}",
        result.stderr
    );
    // The old config has the same value, so the answer proves nothing about the new one.
    assert_eq!(
        proof(&daemon.broadcast(SEEN, &["other=1"]).expect(12)),
        ("unconfirmed", "none")
    );
    let result = daemon
        .broadcast("confirm = []", &["message=one"])
        .expect(12);
    assert_eq!(proof(&result), ("unconfirmed", "none"));
    until("it runs that", || daemon.runs() == "one");
    daemon.refuses(
        &http("metrics", "read = \"metric:nope\"\nincreased = true"),
        &["has no metric `nope`"],
    );
}

#[test]
fn a_counter_that_rose_before_the_signal_proves_nothing() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    // The validator runs after the survey. Its changes are no answer to the signal.
    let counter = daemon.fleet.write("counter", "1");
    let validate = format!(
        "validate = [\"sh\", \"-c\", \"echo 2 >/proc/$PPID/root{}\"]",
        counter.display()
    );
    let fact = format!(
        "[[group.confirm]]\nexec = [\"cat\", \"{}\"]\nincreased = true",
        counter.display()
    );
    let result = daemon
        .unproven(&format!("{validate}\n{fact}"), &["message=two"])
        .expect(5);
    assert!(
        result.stderr.contains("`increased` would prove nothing"),
        "{}",
        result.stderr
    );
}

#[test]
fn a_rejection_is_noticed_while_another_source_does_not_answer() {
    let port = free_port();
    let daemon = Daemon::start(&format!("listen = \"127.0.0.1:{port}\""), &[]);
    let reject = "[[group.reject]]\nexec = [\"grep\", \"-q\", \"wrong\", \"{config}.runs\"]\nread = \"exit\"\nequals = \"0\"";
    let fact = format!(
        "[[group.confirm]]\nhttp = \"http://127.0.0.1:{port}/\"\nequals = \"{{candidate.message}}\""
    );
    let result = daemon
        .broadcast(
            &format!("{fact}\n{reject}"),
            &["message=two", "answers=wrong", "listen=127.0.0.1:0"],
        )
        .expect(6);
    assert_eq!(
        only_instance(&result)["failure"]["kind"],
        "rejected",
        "{:#}",
        result.json
    );
}

#[test]
fn an_assertion_cannot_name_a_key_of_a_directory() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    let (live, new) = (daemon.path("live"), daemon.path("new"));
    for dir in [&live, &new] {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join("a.toml"), dir.to_str().unwrap()).unwrap();
    }
    daemon.group(SEEN);
    let text = std::fs::read_to_string(daemon.path("fleet.toml")).unwrap();
    daemon.fleet.write(
        "fleet.toml",
        &text.replace(
            daemon.path("daemon.toml").to_str().unwrap(),
            live.to_str().unwrap(),
        ),
    );
    let result = daemon
        .fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(4);
    assert!(
        result
            .stderr
            .contains("`{candidate.message}` needs a config that is one file"),
        "{}",
        result.stderr
    );
}

#[test]
fn the_journal_records_the_proof() {
    let daemon = Daemon::start("listen = \"127.0.0.1:0\"", &[]);
    let result = daemon.broadcast(SEEN, &["message=two"]).expect(0);
    let journal = daemon
        .path("state/runs")
        .join(result.json["run"].as_str().unwrap())
        .join("events.jsonl");
    let events = std::fs::read_to_string(journal).unwrap();
    let event = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|event| event["event"] == "instance")
        .unwrap();
    assert_eq!(
        (&event["proof"], &event["moved_from"], &event["draining"]),
        (
            &"content".into(),
            &serde_json::Value::Null,
            &serde_json::json!([])
        )
    );
}
