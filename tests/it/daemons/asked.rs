//! Daemons that a command of their own reloads: named by rndc, and nsd by nsd-control.

use super::{
    Daemon, command, folder, free_port, need,
    services::{Service, aged},
};
use crate::support::{CommandResult, until, write};

/// A zone of one server.
const ZONE: &str = "$TTL 60\n@ IN SOA ns a 1 60 60 60 60\n@ IN NS ns\nns IN A 127.0.0.1\n";

/// Asks the daemon for a record, and returns the answer.
fn dig(daemon: &Service, words: &[&str]) -> String {
    let output = command("dig")
        .args(["+short", "+tries=1", "+time=5", "@127.0.0.1", "-p"])
        .arg(daemon.port.to_string())
        .args(words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Installs another text. The program has no validator here, so that the daemon itself decides.
fn change(daemon: &Service, file: &str, text: &str) -> CommandResult {
    let new = daemon.daemon.write("new", text);
    assert!(daemon.daemon.path(file).exists());
    daemon
        .daemon
        .broadcast(&["--config", new.to_str().unwrap()])
}

fn fleet(daemon: &Service, exe: &str, keys: &str, facts: &str) {
    let dir = daemon.daemon.dir.path().display();
    daemon.daemon.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"one\"\nmatch = {{ exe = \"{exe}\", args = [\"{dir}/*\"] }}\nconfig = \"{{arg:-c}}\"\nconfig_under = \"{dir}\"\nvalidate = \"none\"\ntimeout = \"5m\"\n{keys}\n{facts}"
        ),
    );
}

fn failure(result: &CommandResult) -> String {
    let text = result.json["instances"][0]["failure"]["text"].as_str();
    text.unwrap_or_default().to_owned()
}

/// named, and the port of its control channel.
pub(super) struct Named {
    pub(super) service: Service,
    control: u16,
}

impl Named {
    /// Returns its config.
    pub(super) fn text(&self) -> String {
        std::fs::read_to_string(self.service.daemon.path("named.conf")).unwrap()
    }

    /// Returns the options with which rndc asks it.
    pub(super) fn rndc(&self) -> [String; 6] {
        let key = self.service.daemon.path("rndc.key").display().to_string();
        let (port, host) = (self.control.to_string(), "127.0.0.1".to_owned());
        ["-s".into(), host, "-p".into(), port, "-k".into(), key]
    }
}

/// Starts named with a control channel and one zone.
pub(super) fn named() -> Option<Named> {
    let there = need("named") && need("rndc") && need("dig");
    there.then(|| {
        let (dir, port, control) = (folder(), free_port(), free_port());
        let path = dir.path().display().to_string();
        write(
            &dir.path().join("rndc.key"),
            "key \"k\" { algorithm hmac-sha256; secret \"c2VjcmV0c2VjcmV0\"; };\n",
        );
        write(&dir.path().join("zone"), ZONE);
        let config = aged(write(
            &dir.path().join("named.conf"),
            &format!(
                "options {{ directory \"{path}\"; pid-file none; recursion no; \
                 dnssec-validation no; session-keyfile none; managed-keys-directory \"{path}\";\n\
                 listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; }};\n\
                 include \"{path}/rndc.key\";\n\
                 controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ \"k\"; }}; }};\n{}",
                named_zone("x.example")
            ),
        ));
        let mut program = command("named");
        program.arg("-g").arg("-c").arg(config);
        let service = Service::start(Daemon::spawn(dir, &mut program), port, |s| {
            !soa(s, "x.example").is_empty()
        });
        let named = Named { service, control };
        // Its control channel listens some time after its zones answer.
        let status = || {
            let mut rndc = command("rndc");
            rndc.args(named.rndc()).arg("status");
            rndc.output().is_ok_and(|output| output.status.success())
        };
        until("named answers rndc", status);
        named
    })
}

pub(super) fn named_zone(name: &str) -> String {
    format!("zone \"{name}\" {{ type primary; file \"zone\"; }};\n")
}

/// Writes the group of named, which rndc reloads. The number of its zones shows its config.
fn by_rndc(named: &Named) {
    let (control, options) = (named.control, named.rndc().join(" "));
    let keys = format!(
        "reload_by = [\"rndc\", \"-s\", \"127.0.0.1\", \"-p\", \"{control}\", \"-k\", \"{{config.dir}}/rndc.key\", \"reload\"]"
    );
    let facts = format!(
        "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"rndc {options} status | grep 'number of zones'\"]\nchanged = true\n"
    );
    fleet(&named.service, "named", &keys, &facts);
}

#[test]
fn rndc_reloads_named_and_its_answer_proves_it() {
    let Some(named) = named() else { return };
    by_rndc(&named);
    let old = named.text();
    let result = change(
        &named.service,
        "named.conf",
        &(old + &named_zone("y.example")),
    )
    .expect(0);
    assert_eq!(result.json["instances"][0]["proof"], "content");
    assert!(!soa(&named.service, "y.example").is_empty());
}

#[test]
fn rndc_says_at_once_that_named_refuses_a_config() {
    let Some(named) = named() else { return };
    by_rndc(&named);
    let old = named.text();
    let bad = old.clone() + &named_zone("y.example") + "include \"/none/such\";\n";
    let result = change(&named.service, "named.conf", &bad).expect(6);
    let why = failure(&result);
    assert!(why.contains("'reload' failed: file not found"), "{why}");
    assert!(soa(&named.service, "y.example").is_empty());
    let now = named.text();
    assert_eq!(now, old);
}

/// Starts nsd with one zone.
fn nsd() -> Option<Service> {
    let there = need("nsd") && need("nsd-control") && need("dig");
    there.then(|| {
        let (dir, port) = (folder(), free_port());
        let path = dir.path().display().to_string();
        write(&dir.path().join("zone"), ZONE);
        let config = aged(write(
            &dir.path().join("nsd.conf"),
            &format!(
                "server:\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{path}\"\n  zonelistfile: \"{path}/list\"\n  \
                 database: \"\"\n  xfrdfile: \"{path}/xfrd\"\n  xfrdir: \"{path}\"\n  pidfile: \"{path}/pid\"\n  \
                 ip-address: 127.0.0.1@{port}\n  server-count: 1\nremote-control:\n  control-enable: yes\n  \
                 control-interface: {path}/ctl\n{}",
                zone("x.example")
            ),
        ));
        let mut command = command("nsd");
        command.arg("-d").arg("-c").arg(config);
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            !soa(s, "x.example").is_empty()
        })
    })
}

fn zone(name: &str) -> String {
    format!("zone:\n  name: {name}\n  zonefile: zone\n")
}

pub(super) fn soa(daemon: &Service, name: &str) -> String {
    dig(daemon, &[name, "SOA"])
}

#[test]
fn nsd_control_says_at_once_that_nsd_refuses_a_config() {
    let Some(nsd) = nsd() else { return };
    let facts = "[[group.confirm]]\nexec = [\"nsd-control\", \"{opt:-c}\", \"zonestatus\"]\nchanged = true\n";
    let by = "reload_by = [\"nsd-control\", \"{opt:-c}\", \"reconfig\"]";
    fleet(&nsd, "nsd", by, facts);
    let old = std::fs::read_to_string(nsd.daemon.path("nsd.conf")).unwrap();
    let bad = old.clone() + &zone("y.example") + "bad:\n";
    let result = change(&nsd, "nsd.conf", &bad).expect(6);
    let why = failure(&result);
    assert!(why.contains("ended with exit status 1: "), "{why}");
    let now = std::fs::read_to_string(nsd.daemon.path("nsd.conf")).unwrap();
    assert_eq!(now, old);
    until("it answers", || !soa(&nsd, "x.example").is_empty());
}
