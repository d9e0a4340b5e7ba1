//! Daemons that no signal reloads. Each is refused by its kind, with the reason and with what to do
//! instead, and runs on.

use std::process::Command;

use super::{Daemon, command, folder, free_port, need, services, started, words};
use crate::support::{CommandResult, runs_as_root, until, write};

/// Checks that `doctor`, `status` and a broadcast of the kind refuse the daemon with `why`, that
/// the first and the last name `instead`, and that it runs on.
fn refuses(daemon: &Daemon, kind: &str, why: &str, instead: &str) {
    let (pid, since) = (daemon.pid(), started(daemon.pid()).unwrap());
    let exam = CommandResult::of(
        Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(["doctor", &pid.to_string(), "-o", "json"])
            .current_dir("/proc/self")
            .env_remove("HELLO_FLEET"),
    )
    .expect(5);
    let process = &exam.json["processes"][0];
    let refusals: Vec<_> = process["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] == false)
        .map(|check| (check["text"].as_str().unwrap(), check["next"].as_str()))
        .collect();
    let [(text, Some(next))] = refusals[..] else {
        panic!("{process:#}");
    };
    assert_eq!(text, format!("is reloaded by no signal: {why}"));
    assert!(next.contains(instead), "{next}");
    assert_eq!(process["group"], kind, "{process:#}");

    daemon.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"one\"\nkind = \"{kind}\"\ninstances = [{{ pid = {pid} }}]\n"));
    let new = daemon.write("new", "anything\n");
    for args in [&[][..], &["--config", new.to_str().unwrap()]] {
        let result = daemon.broadcast(args).expect(5);
        assert_eq!(result.states(), ["refused"], "{args:?}");
        assert!(result.stderr.contains(why), "{args:?}: {}", result.stderr);
        assert!(
            result.stderr.contains(instead),
            "{args:?}: {}",
            result.stderr
        );
    }
    let faults = daemon.status().expect(7).json["instances"][0]["faults"].to_string();
    assert!(faults.contains(why), "{faults}");
    assert_eq!(started(pid), Some(since), "it runs on");
}

/// Waits until a daemon has begun to work, by a sign of its own.
fn begun(daemon: Daemon, has_begun: impl Fn(&Daemon) -> bool) -> Daemon {
    until("it has begun to work", || {
        assert!(daemon.runs(), "it ended: {}", daemon.log());
        has_begun(&daemon)
    });
    daemon
}

#[test]
fn chronyd_is_refused_since_the_signal_ends_it() {
    if !need("chronyd") {
        return;
    }
    let dir = folder();
    let pid_file = dir.path().join("pid");
    let text = format!(
        "allow\nport {}\nbindaddress 127.0.0.1\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
        free_port(),
        pid_file.display()
    );
    let config = write(&dir.path().join("chrony.conf"), &text);
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap();
    let mut chronyd = command("chronyd");
    // It does not touch the clock.
    chronyd
        .args(["-x", "-d", "-U", "-u", &user.name, "-f"])
        .arg(config);
    let daemon = begun(Daemon::spawn(dir, &mut chronyd), |_| pid_file.exists());
    refuses(
        &daemon,
        "chronyd",
        "SIGHUP ends it",
        "`chronyc reload sources`",
    );
}

#[test]
fn cron_is_refused_since_it_reads_its_tables_by_itself() {
    if !(need("cron") && need("unshare") && runs_as_root("cron needs root")) {
        return;
    }
    // It has a lock and tables of its own: it runs no job of this machine.
    let own = "mount -t tmpfs none /run && mount -t tmpfs none /etc/cron.d && mount -t tmpfs none /var/spool/cron && \
               mkdir /var/spool/cron/crontabs && { [ ! -e /etc/crontab ] || mount --bind /dev/null /etc/crontab; } && exec \"$0\" -f";
    let mut unshare = command("unshare");
    unshare
        .args(["--mount", "sh", "-c", own])
        .arg(command("cron").get_program());
    let daemon = begun(Daemon::spawn(folder(), &mut unshare), |daemon| {
        words(daemon.pid()).get(1).is_some_and(|word| word == "-f")
    });
    refuses(
        &daemon,
        "cron",
        "it reads its tables by itself within a minute",
        "nothing else is needed",
    );
}

#[test]
fn redis_is_refused_since_it_ignores_the_signal() {
    let Some(redis) = services::redis() else {
        return;
    };
    refuses(&redis.daemon, "redis", "it ignores SIGHUP", "CONFIG SET");
    assert!(services::pong(&redis));
}

#[test]
fn collectd_is_refused_since_the_signal_ends_it() {
    if !need("collectd") {
        return;
    }
    let dir = folder();
    let pid_file = dir.path().join("pid");
    let text = format!(
        "BaseDir \"{}\"\nPIDFile \"{}\"\nHostname \"x\"\nLoadPlugin logfile\n",
        dir.path().display(),
        pid_file.display()
    );
    let config = write(&dir.path().join("collectd.conf"), &text);
    let mut collectd = command("collectd");
    let daemon = Daemon::spawn(dir, collectd.arg("-f").arg("-C").arg(config));
    let daemon = begun(daemon, |daemon| {
        daemon.log().contains("Initialization complete")
    });
    refuses(&daemon, "collectd", "SIGHUP ends it", "restart it");
}

#[test]
fn privoxy_is_refused_since_it_reads_its_config_by_itself() {
    if !need("privoxy") {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let text = format!("listen-address 127.0.0.1:{port}\n");
    let config = write(&dir.path().join("privoxy.conf"), &text);
    let mut privoxy = command("privoxy");
    let daemon = Daemon::spawn(dir, privoxy.arg("--no-daemon").arg(config));
    let daemon = begun(daemon, |_| {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    refuses(
        &daemon,
        "privoxy",
        "it reads its config by itself at the next request",
        "nothing else is needed",
    );
}

#[test]
fn supervisord_is_refused_since_the_signal_restarts_its_programs() {
    if !need("supervisord") {
        return;
    }
    let dir = folder();
    let own = dir.path().display();
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile={own}/own.log\npidfile={own}/pid\n[program:a]\ncommand=sleep 600\n"
    );
    let config = write(&dir.path().join("supervisord.conf"), &text);
    let mut supervisord = command("supervisord");
    let daemon = Daemon::spawn(dir, supervisord.arg("-c").arg(config));
    let daemon = begun(daemon, |daemon| daemon.children().len() == 1);
    let children = daemon.children();
    refuses(
        &daemon,
        "supervisord",
        "SIGHUP restarts every program that it runs",
        "`supervisorctl update`",
    );
    assert_eq!(daemon.children(), children);
}

/// Its package is large, so that another program has its name here.
fn caddy() -> Daemon {
    let dir = folder();
    let caddy = dir.path().join("caddy");
    std::fs::copy("/bin/sleep", &caddy).unwrap();
    begun(
        Daemon::spawn(dir, Command::new(&caddy).arg("600")),
        |daemon| words(daemon.pid()).first() == Some(&caddy.display().to_string()),
    )
}

#[test]
fn caddy_is_refused_without_a_command_that_reloads_it() {
    let caddy = caddy();
    refuses(
        &caddy,
        "caddy",
        "it does nothing on SIGHUP",
        "`caddy reload --config FILE`",
    );
}

#[test]
fn caddy_reloads_by_a_command_of_its_group() {
    let caddy = caddy();
    let pid = caddy.pid();
    let asked = caddy.path("asked");
    caddy.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"one\"\nkind = \"caddy\"\ninstances = [{{ pid = {pid} }}]\nreload_by = [\"touch\", \"{}\"]\ntimeout = \"5s\"\n", asked.display()));
    caddy.broadcast(&[]).expect(12);
    assert!(asked.exists());
}

#[test]
fn a_group_that_declares_a_reload_contradicts_its_kind() {
    let dir = folder();
    let fleet = write(
        &dir.path().join("fleet.toml"),
        "version = 1\n[[group]]\nkind = \"chronyd\"\nreloads = true\n",
    );
    let result = CommandResult::of(
        Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(["status", "-o", "json", "--fleet"])
            .arg(fleet),
    )
    .expect(2);
    assert!(
        result.stderr.contains("SIGHUP ends it"),
        "{}",
        result.stderr
    );
}

#[test]
fn the_kinds_that_no_signal_reloads_are_listed_apart() {
    let output = Command::new(env!("CARGO_BIN_EXE_hello"))
        .arg("kinds")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (kinds, refused) = text.split_once("REFUSED").unwrap();
    for (kind, place, other) in [("nginx", kinds, refused), ("chronyd", refused, kinds)] {
        let is_row = |line: &str| line.split_whitespace().next() == Some(kind);
        assert!(place.lines().any(is_row), "{text}");
        assert!(!other.lines().any(is_row), "{text}");
    }
}
