//! Daemons that report a refused config in their log alone.

use super::{Daemon, command, folder, free_port, need};
use crate::support::{CommandResult, until, write};

/// Starts a daemon whose config is `x.conf` and whose log is `x.log`, both in its folder.
fn start(name: &str, flags: &[&str], config: &str) -> Option<Daemon> {
    if !need(name) {
        return None;
    }
    let dir = folder();
    let log = dir.path().join("x.log").display().to_string();
    let port = free_port().to_string();
    let text = config.replace("LOG", &log).replace("PORT", &port);
    let path = write(&dir.path().join("x.conf"), &text);
    let daemon = Daemon::spawn(dir, command(name).args(flags).arg("-c").arg(path));
    Some(daemon)
}

fn log(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.path("x.log")).unwrap_or_default()
}

/// Changes the config with this group.
fn change(daemon: &Daemon, group: &str, text: &str) -> CommandResult {
    let config = daemon.path("x.conf").display().to_string();
    let log = daemon.path("x.log").display().to_string();
    let facts = group.replace("CONFIG", &config).replace("LOG", &log);
    let fleet = format!("version = 1\n[[group]]\nname = \"d\"\nreloads = true\n{facts}");
    daemon.write("fleet.toml", &fleet);
    let new = daemon.write("new", text);
    daemon.broadcast(&["--config", new.to_str().unwrap()])
}

const TINYPROXY: &str = r#"match = { exe = "tinyproxy", args = ["CONFIG"] }
config = "{arg:-c}"
signal = "SIGUSR1"
timeout = "20s"

[[group.confirm]]
log = "LOG"
contains = "[{pid}]: Reloading config file finished"

[[group.reject]]
log = "LOG"
contains = "[{pid}]: Reloading config file failed"
"#;

#[test]
fn tinyproxy_is_confirmed_and_refused_by_its_log() {
    let config = "Port PORT\nListen 127.0.0.1\nLogFile \"LOG\"\nLogLevel Info\nMaxClients 10\n";
    let Some(daemon) = start("tinyproxy", &["-d"], config) else {
        return;
    };
    until("it runs", || log(&daemon).contains("Accepting connections"));
    let good = std::fs::read_to_string(daemon.path("x.conf")).unwrap();
    let result = change(&daemon, TINYPROXY, &good.replace("10", "11")).expect(0);
    assert_eq!(result.json["instances"][0]["proof"], "reloaded");
    let before = std::fs::read_to_string(daemon.path("x.conf")).unwrap();
    let result = change(&daemon, TINYPROXY, &format!("{good}Nonsense 1\n")).expect(6);
    let one = &result.json["instances"][0];
    assert_eq!(one["failure"]["kind"], "rejected", "{:#}", result.json);
    let why = one["failure"]["text"].as_str().unwrap();
    assert!(why.contains("Reloading config file failed!"), "{why}");
    assert_eq!(
        std::fs::read_to_string(daemon.path("x.conf")).unwrap(),
        before
    );
}

const MOSQUITTO: &str = r#"match = { exe = "mosquitto", args = ["CONFIG"] }
config = "{arg:-c}"
timeout = "3s"
confirm = []

[[group.reject]]
log = "LOG"
matches = '^\d+: Error: '
"#;

#[test]
fn mosquitto_is_refused_by_its_log_though_nothing_confirms_it() {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let user = user.unwrap().unwrap().name;
    let config = format!(
        "listener PORT 127.0.0.1\nallow_anonymous true\nlog_dest file LOG\nlog_type all\nuser {user}\n"
    );
    let Some(daemon) = start("mosquitto", &[], &config) else {
        return;
    };
    until("it runs", || log(&daemon).contains("running"));
    let good = std::fs::read_to_string(daemon.path("x.conf")).unwrap();
    let result = change(&daemon, MOSQUITTO, &format!("{good}# more\n")).expect(12);
    assert_eq!(result.states(), ["unconfirmed"]);
    let result = change(&daemon, MOSQUITTO, &format!("{good}nonsense 1\n"));
    let one = &result.json["instances"][0];
    assert_eq!(one["failure"]["kind"], "rejected", "{:#}", result.json);
    let why = one["failure"]["text"].as_str().unwrap();
    assert!(
        why.contains("Unknown configuration variable \"nonsense\""),
        "{why}"
    );
}
