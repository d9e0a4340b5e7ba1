//! Hosts behind a real sshd.

use std::process::Stdio;

use super::{Testbed, text};
use crate::{
    daemons::{command, free_port, need},
    support::{Killed, runs_as_root, until, write},
};

/// One sshd on loopback, with a key that it lets in.
pub(super) struct Sshd {
    pub(super) testbed: Testbed,
    pub(super) port: u16,
    _server: Killed,
}

impl Sshd {
    fn start() -> Option<Self> {
        let sshd = Self::start_with("ListenAddress 127.0.0.1\n")?;
        sshd.know("hostkey");
        sshd.fleet("root", &sshd.testbed.agent());
        Some(sshd)
    }

    /// Starts sshd with these lines in its config, and one for 127.0.0.1 among them.
    pub(super) fn start_with(lines: &str) -> Option<Self> {
        if !need("sshd")
            || !need("ssh")
            || !need("ssh-keygen")
            || !runs_as_root("sshd lets root in")
        {
            return None;
        }
        let testbed = Testbed::new("");
        for name in ["hostkey", "otherkey", "key"] {
            keygen(&testbed, name);
        }
        std::fs::copy(testbed.path("key.pub"), testbed.path("authorized")).unwrap();
        std::fs::create_dir_all("/run/sshd").unwrap();
        let port = free_port();
        let dir = testbed.dir.path().display();
        write(
            &testbed.path("sshd_config"),
            &format!(
                "Port {port}\n{lines}HostKey {dir}/hostkey\nPidFile none\n\
                 AuthorizedKeysFile {dir}/authorized\nStrictModes no\nPermitRootLogin yes\n\
                 UsePAM no\nPasswordAuthentication no\n"
            ),
        );
        let log = std::fs::File::create(testbed.path("sshd.log")).unwrap();
        let server = command("sshd")
            .args(["-D", "-e", "-f"])
            .arg(testbed.path("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sshd = Self {
            testbed,
            port,
            _server: Killed(server),
        };
        until("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(sshd)
    }

    /// Makes a host key the one that the coordinator knows.
    fn know(&self, key: &str) {
        let key = std::fs::read_to_string(self.testbed.path(&format!("{key}.pub"))).unwrap();
        let line = format!("[127.0.0.1]:{} {key}", self.port);
        write(&self.testbed.path("known_hosts"), &line);
    }

    /// Writes the fleet: one host, and the command there.
    fn fleet(&self, user: &str, remote: &str) {
        let connect = self.connect(user, remote);
        self.testbed.fleet(&format!(
            "list = [{{ name = \"a\", address = \"127.0.0.1\" }}]\nconnect = {connect}"
        ));
    }

    /// Returns the value of `connect` that runs the command on a host.
    pub(super) fn connect(&self, user: &str, remote: &str) -> String {
        let dir = self.testbed.dir.path().display();
        let port = format!("-p{}", self.port);
        let mut words = vec!["ssh".to_owned(), "-T".into(), "-F/dev/null".into(), port];
        words.push(format!("-i{dir}/key"));
        for option in ["BatchMode=yes", "ConnectTimeout=10", "IdentitiesOnly=yes"] {
            words.push(format!("-o{option}"));
        }
        words.push(format!("-oUserKnownHostsFile={dir}/known_hosts"));
        words.push(format!("-oUser={user}"));
        words.extend(["--".into(), "{address}".into()]);
        words.extend(remote.split(' ').map(str::to_owned));
        serde_json::to_string(&words).unwrap()
    }

    fn repair(&self) -> String {
        text(&self.testbed.host(11), "repair").to_owned()
    }
}

pub(super) fn keygen(testbed: &Testbed, name: &str) {
    let made = command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(testbed.path(name))
        .status()
        .unwrap();
    assert!(made.success());
}

#[test]
fn a_host_is_ready_over_ssh() {
    let Some(sshd) = Sshd::start() else { return };
    let host = sshd.testbed.host(0);
    assert_eq!(host["state"], "ready", "{host}");
    assert_eq!(host["groups"][0]["name"], "web");
}

#[test]
fn an_unknown_and_a_changed_host_key_are_named_with_the_next_step() {
    let Some(sshd) = Sshd::start() else { return };
    write(&sshd.testbed.path("known_hosts"), "");
    let repair = sshd.repair();
    assert!(
        repair.contains("answer yes: ssh ") && repair.ends_with(" 127.0.0.1"),
        "{repair}"
    );
    sshd.know("otherkey");
    let repair = sshd.repair();
    assert!(
        repair.contains("remove the old one: ssh-keygen -f "),
        "{repair}"
    );
}

#[test]
fn a_key_that_sshd_does_not_know_is_named() {
    let Some(sshd) = Sshd::start() else { return };
    write(&sshd.testbed.path("authorized"), "");
    let repair = sshd.repair();
    assert!(repair.contains("ssh-copy-id"), "{repair}");
}

#[test]
fn a_host_without_hello_is_told_from_one_that_is_away() {
    let Some(sshd) = Sshd::start() else { return };
    sshd.fleet("root", "/no/such/hello agent --stdio");
    let repair = sshd.repair();
    assert!(repair.contains("hello help install"), "{repair}");
}

#[test]
fn a_missing_sudo_rule_is_named_with_the_line_to_add() {
    let Some(sshd) = Sshd::start() else { return };
    if !need("sudo") {
        return;
    }
    // Root may become `nobody`, and `nobody` has no rule.
    let remote = format!(
        "setpriv --reuid=65534 --regid=65534 --clear-groups sudo -n {}",
        sshd.testbed.agent()
    );
    sshd.fleet("root", &remote);
    let repair = sshd.repair();
    let program = env!("CARGO_BIN_EXE_hello");
    assert!(
        repair.contains(&format!("NOPASSWD: {program} agent --stdio")),
        "{repair}"
    );
}

#[test]
fn a_message_of_the_day_does_no_harm() {
    let Some(sshd) = Sshd::start() else { return };
    let remote = format!("echo Welcome; {}", sshd.testbed.agent());
    sshd.fleet("root", &remote);
    assert_eq!(sshd.testbed.host(0)["state"], "ready");
}
