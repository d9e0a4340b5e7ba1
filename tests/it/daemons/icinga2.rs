//! Icinga 2 under `hello broadcast`, by the shipped kind. A process starts a worker for each load.

use super::{Daemon, case::Case, command, folder, need};
use crate::support::{until, write};

/// Returns a config with this many hosts.
fn text(hosts: usize) -> String {
    let host = |n| format!("object Host \"h{n}\" {{ check_command = \"true\" }}\n");
    let hosts: String = (0..hosts).map(host).collect();
    format!(
        "object CheckerComponent \"checker\" {{ }}\nobject CheckCommand \"true\" {{ command = [ \"/bin/true\" ] }}\n{hosts}"
    )
}

/// Starts Icinga 2 with one host, as the user that runs the tests.
fn icinga2() -> Option<Daemon> {
    need("icinga2").then(|| {
        let dir = folder();
        let config = write(&dir.path().join("icinga2.conf"), &text(1));
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap();
        let group = nix::unistd::Group::from_gid(nix::unistd::getegid())
            .unwrap()
            .unwrap();
        let mut command = command("icinga2");
        command.arg("daemon").arg("-c").arg(config);
        for (name, value) in [
            ("RunAsUser", user.name),
            ("RunAsGroup", group.name),
            ("PidPath", dir.path().join("pid").display().to_string()),
        ] {
            command
                .arg("-D")
                .arg(format!("Configuration.{name}={value}"));
        }
        for name in ["Data", "Log", "Cache", "Spool", "InitRun"] {
            let own = dir.path().join(name);
            std::fs::create_dir(&own).unwrap();
            command
                .arg("-D")
                .arg(format!("Configuration.{name}Dir={}", own.display()));
        }
        let daemon = Daemon::spawn(dir, &mut command);
        until("it has begun to work", || {
            assert!(daemon.runs(), "{}", daemon.log());
            loads(&daemon) == "1"
        });
        daemon
    })
}

/// Returns how often it has begun to work on a config.
fn loads(icinga2: &Daemon) -> String {
    icinga2
        .log()
        .matches("Activated all objects")
        .count()
        .to_string()
}

/// Returns the number of hosts in its last load.
fn hosts(icinga2: &Daemon) -> Option<usize> {
    let number = |line: &str| {
        let (_, rest) = line.split_once("Instantiated ")?;
        let number = rest
            .strip_suffix(" Hosts.")
            .or(rest.strip_suffix(" Host."))?;
        number.parse().ok()
    };
    icinga2.log().lines().rev().find_map(number)
}

fn case<'a>(icinga2: &'a Daemon, loads: &'a dyn Fn() -> String) -> Case<'a> {
    Case::of(icinga2, ("icinga2", "icinga2.conf"), loads)
}

#[test]
fn icinga2_loads_good_configs_and_refuses_bad_ones() {
    let Some(icinga2) = icinga2() else { return };
    let loads = || loads(&icinga2);
    let case = case(&icinga2, &loads);
    case.takes(&text(2), "workers");
    assert_eq!(hosts(&icinga2), Some(2));
    case.settles();
    case.refuses(
        &(text(3) + "object Host \"x\" { }\n"),
        "Attribute must not be empty",
    );
}

#[test]
fn a_config_that_icinga2_cannot_load_leaves_the_old_worker() {
    let Some(icinga2) = icinga2() else { return };
    let loads = || loads(&icinga2);
    let case = case(&icinga2, &loads);
    // Its own validator would find this fault.
    case.fleet("timeout = \"4s\"\nvalidate = [\"true\", \"{candidate}\"]");
    case.rolls_back(&(text(3) + "throw \"no\"\n"), "timed_out");
    assert_eq!(hosts(&icinga2), Some(1));
}

/// Returns a config that the validator passes and whose log cannot be opened.
fn with_a_log() -> String {
    text(3) + "object FileLogger \"log\" { path = \"/nonexistent/log\" }\n"
}

#[test]
fn an_object_that_cannot_start_ends_icinga2_and_the_restart_command_is_shown() {
    let Some(icinga2) = icinga2() else { return };
    let loads = || loads(&icinga2);
    let case = case(&icinga2, &loads);
    let command = case.dies(&with_a_log());
    let typed = Daemon::spawn(
        folder(),
        std::process::Command::new("sh").args(["-c", &command]),
    );
    until("it works on the old config", || {
        assert!(typed.runs(), "{command}: {}", typed.log());
        self::loads(&typed) == "1"
    });
}

#[test]
fn an_object_that_cannot_start_ends_icinga2_and_it_is_revived() {
    let Some(icinga2) = icinga2() else { return };
    let loads = || loads(&icinga2);
    let case = case(&icinga2, &loads);
    case.is_revived(&with_a_log(), &["{exe}", "{args}"]);
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(icinga2) = icinga2() else { return };
    let loads = || loads(&icinga2);
    let case = case(&icinga2, &loads);
    case.continues(&text(2));
    case.stops_and_dies(&text(2), "");
}
