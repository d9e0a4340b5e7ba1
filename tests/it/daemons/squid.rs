//! squid under `hello broadcast`, by the shipped kind. Its master passes the signal on to the process
//! that serves.

use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
};

use super::{Daemon, acts, case::Case, command, folder, free_port, need, services::Service};
use crate::support::write;

fn config(squid: &Service, name: &str) -> String {
    text(
        &squid.daemon.dir.path().display().to_string(),
        squid.port,
        name,
    )
}

fn text(dir: &str, port: u16, name: &str) -> String {
    format!(
        "http_port 127.0.0.1:{port}\nvisible_hostname {name}.example\npid_filename {dir}/var/pid\ncache_log {dir}/var/cache.log\n\
         coredump_dir {dir}/var\naccess_log none\npinger_enable off\nhttp_access deny all\nshutdown_lifetime 1 seconds\n"
    )
}

/// Starts squid with one process that serves. It has the name `one.example`.
fn squid() -> Option<Service> {
    need("squid").then(|| {
        let (dir, port) = (folder(), free_port());
        // As root it writes as the user of its package.
        let var = dir.path().join("var");
        std::fs::create_dir(&var).unwrap();
        std::fs::set_permissions(&var, std::fs::Permissions::from_mode(0o777)).unwrap();
        let config = write(
            &dir.path().join("squid.conf"),
            &text(&dir.path().display().to_string(), port, "one"),
        );
        let mut command = command("squid");
        command
            .args(["--foreground", "-n", &format!("t{port}"), "-f"])
            .arg(config);
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            name(s).is_some()
        })
    })
}

/// Returns the name that its answers carry. It answers a request that is none for a proxy with 400.
fn name(squid: &Service) -> Option<String> {
    let mut stream = squid.connect()?;
    write!(stream, "GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer).ok()?;
    let (_, via) = answer.split_once("Via: ")?;
    via.split(' ').nth(1).map(str::to_owned)
}

fn log(squid: &Service) -> String {
    let log = std::fs::read(squid.daemon.path("var/cache.log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Returns how often it has read its config again.
fn loads(squid: &Service) -> String {
    log(squid)
        .matches("Reconfiguring Squid Cache")
        .count()
        .to_string()
}

fn case<'a>(squid: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let config = squid.daemon.path("squid.conf");
    let case = Case {
        daemon: &squid.daemon,
        kind: "squid",
        file: "squid.conf",
        group: format!(
            "match = {{ exe = \"squid\", args = [\"{}\"] }}\nconfig_under = \"{}\"",
            config.display(),
            squid.daemon.dir.path().display()
        ),
        facts: String::new(),
        loads,
    };
    case.fleet("");
    case
}

#[test]
fn squid_loads_good_configs_and_refuses_lines_that_it_would_skip() {
    let Some(squid) = squid() else { return };
    let loads = || loads(&squid);
    let case = case(&squid, &loads);
    case.takes(&config(&squid, "two"), "workers");
    assert_eq!(name(&squid).as_deref(), Some("two.example"));
    case.takes(&config(&squid, "three"), "workers");
    assert_eq!(name(&squid).as_deref(), Some("three.example"));
    case.settles();
    case.refuses(&(config(&squid, "four") + "nonsense on\n"), "nonsense");
    case.refuses(&(config(&squid, "four") + "acl x nonsense y\n"), "nonsense");
}

#[test]
fn an_assertion_on_the_answer_of_squid_proves_the_content() {
    let Some(squid) = squid() else { return };
    let loads = || loads(&squid);
    let mut case = case(&squid, &loads);
    case.facts = "[[group.confirm]]\nhttp = \"http://{listen}/\"\nstatus = 400\nread = \"header:Via\"\nchanged = true\n".into();
    case.fleet("");
    case.takes(&config(&squid, "two"), "content");
}

/// The kind cannot see it.
#[test]
fn squid_skips_a_taken_port_and_only_its_log_says_so() {
    let Some(squid) = squid() else { return };
    let loads = || loads(&squid);
    let case = case(&squid, &loads);
    let (_taken, port) = acts::taken_port();
    case.takes(
        &(config(&squid, "two") + &format!("http_port 127.0.0.1:{port}\n")),
        "workers",
    );
    assert_eq!(name(&squid).as_deref(), Some("two.example"));
    assert!(
        log(&squid).contains("Cannot bind socket"),
        "{}",
        log(&squid)
    );
}

/// Returns a config that `squid -k parse` passes and that squid cannot load.
fn with_a_log(squid: &Service) -> String {
    config(squid, "two").replace("access_log none", "access_log stdio:/nonexistent/log")
}

#[test]
fn a_log_that_cannot_be_opened_ends_squid_and_the_restart_command_is_shown() {
    let Some(squid) = squid() else { return };
    let loads = || loads(&squid);
    let case = case(&squid, &loads);
    let command = case.dies(&with_a_log(&squid));
    let typed = Daemon::spawn(
        folder(),
        std::process::Command::new("sh").args(["-c", &command]),
    );
    crate::support::until("it serves the old config", || {
        assert!(typed.runs(), "{command}: {}", typed.log());
        name(&squid).as_deref() == Some("one.example")
    });
}

#[test]
fn a_log_that_cannot_be_opened_ends_squid_and_it_is_revived() {
    let Some(squid) = squid() else { return };
    let loads = || loads(&squid);
    let case = case(&squid, &loads);
    case.is_revived(&with_a_log(&squid), &["{exe}", "{args}"]);
    assert_eq!(name(&squid).as_deref(), Some("one.example"));
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(squid) = squid() else { return };
    let loads = || loads(&squid);
    let case = case(&squid, &loads);
    case.continues(&config(&squid, "two"));
    case.stops_and_dies(&config(&squid, "two"), "");
}
