//! Postfix under `hello broadcast`, by the shipped kind. It needs root for its users.

use std::io::{BufRead, BufReader, Read};

use super::{Daemon, acts, case::Case, command, folder, free_port, need, services::Service, words};
use crate::support::{until, write};

/// The program that takes the signal. Debian has it here.
const MASTER: &str = "/usr/lib/postfix/sbin/master";

/// Returns a config with this name in the greeting.
fn config(postfix: &Service, name: &str) -> String {
    text(&postfix.daemon.dir.path().display().to_string(), name)
}

fn text(dir: &str, name: &str) -> String {
    format!(
        "compatibility_level = 3.6\nqueue_directory = {dir}/spool\ndata_directory = {dir}/data\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = {name}.example\n\
         smtputf8_enable = no\nmynetworks_style = host\nalias_maps =\nalias_database =\n"
    )
}

/// Returns the services that take mail on this port.
fn services(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\n\
         proxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\nsmtp unix - - n - - smtp\nerror unix - - n - - error\n\
         local unix - n n - - local\nanvil unix - - n - 1 anvil\n"
    )
}

/// Starts Postfix. It greets as `one.example`.
fn postfix() -> Option<Service> {
    if !need("postfix") {
        return None;
    }
    if !nix::unistd::geteuid().is_root() {
        crate::support::skipped("Postfix needs root");
        return None;
    }
    let (dir, port) = (folder(), free_port());
    let etc = dir.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let owner = nix::unistd::User::from_name("postfix").unwrap().unwrap();
    std::os::unix::fs::chown(dir.path().join("data"), Some(owner.uid.as_raw()), None).unwrap();
    write(
        &etc.join("main.cf"),
        &text(&dir.path().display().to_string(), "one"),
    );
    write(&etc.join("master.cf"), &services(port));
    std::fs::create_dir(dir.path().join("spool")).unwrap();
    // It makes the queues.
    let made = command("postfix")
        .arg("check")
        .env("MAIL_CONFIG", &etc)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut command = std::process::Command::new(MASTER);
    command.arg("-d").env("MAIL_CONFIG", &etc);
    let daemon = Daemon::spawn(dir, &mut command);
    Some(Service::start(daemon, port, |s| greeting(s).is_some()))
}

/// Returns the name in its greeting.
fn greeting(postfix: &Service) -> Option<String> {
    let stream = postfix.connect()?;
    let mut line = String::new();
    BufReader::new(stream.take(1000))
        .read_line(&mut line)
        .ok()?;
    line.split(' ').nth(1).map(str::to_owned)
}

/// Returns its queue manager, which each reload starts anew.
fn loads(postfix: &Service) -> String {
    let is_manager = |pid: &i32| words(*pid).first().is_some_and(|name| name == "qmgr");
    let managers: Vec<i32> = postfix
        .daemon
        .children()
        .into_iter()
        .filter(is_manager)
        .collect();
    format!("{managers:?}")
}

/// Returns the case for one of its two files.
fn case<'a>(postfix: &'a Service, file: &'static str, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let mut group = format!("match = {{ exe = \"{MASTER}\", port = {} }}", postfix.port);
    if file == "etc/master.cf" {
        group += &format!("\nconfig = \"{}\"", postfix.daemon.path(file).display());
    }
    let case = Case {
        daemon: &postfix.daemon,
        kind: "postfix",
        file,
        group,
        facts: String::new(),
        loads,
    };
    case.fleet("");
    case
}

#[test]
fn postfix_loads_good_configs_and_refuses_bad_ones() {
    let Some(postfix) = postfix() else { return };
    let loads = || loads(&postfix);
    let case = case(&postfix, "etc/main.cf", &loads);
    case.takes(&config(&postfix, "two"), "reloaded");
    assert_eq!(greeting(&postfix).as_deref(), Some("two.example"));
    case.settles();
    case.refuses(
        &(config(&postfix, "three") + "nonsense\n"),
        "missing '=' after attribute name",
    );
    case.refuses(
        &(config(&postfix, "three") + "mail_owner = nonsense\n"),
        "mail_owner",
    );
}

#[test]
fn a_change_of_the_interfaces_of_postfix_needs_a_restart() {
    let Some(postfix) = postfix() else { return };
    let loads = || loads(&postfix);
    let case = case(&postfix, "etc/main.cf", &loads);
    let other =
        config(&postfix, "one").replace("inet_interfaces = 127.0.0.1", "inet_interfaces = all");
    case.untouched(10, &["inet_interfaces"], || case.change(&other));
}

#[test]
fn a_process_with_an_open_session_still_listens_and_is_waited_for() {
    let Some(postfix) = postfix() else { return };
    let loads = || loads(&postfix);
    let case = case(&postfix, "etc/main.cf", &loads);
    let session = || {
        let mut stream = postfix.connect().unwrap();
        assert!(stream.read(&mut [0; 4]).unwrap() > 0);
        stream
    };
    case.fleet("timeout = \"3s\"");
    let open = session();
    case.rolls_back(&config(&postfix, "two"), "foreign_listener");
    drop(open);
    case.fleet("");
    let new = postfix.daemon.write("new", &config(&postfix, "two"));
    let mut open = Some(session());
    let result = postfix
        .daemon
        .watch(&["--config", new.to_str().unwrap()], |event| {
            if event["event"] == "installed" {
                open = None;
            }
        });
    assert_eq!(result.expect(0).states(), ["confirmed"]);
}

/// Returns services with one on another port.
fn with_a_port(postfix: &Service, port: u16) -> String {
    services(postfix.port) + &format!("127.0.0.1:{port} inet n - n - - smtpd\n")
}

#[test]
fn the_services_of_postfix_are_a_target() {
    let Some(postfix) = postfix() else { return };
    let loads = || loads(&postfix);
    let case = case(&postfix, "etc/master.cf", &loads);
    case.refuses(&(services(postfix.port) + "nonsense\n"), "bad field count");
    let port = free_port();
    case.takes(&with_a_port(&postfix, port), "reloaded");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}

#[test]
fn a_taken_port_ends_postfix_and_the_restart_command_is_shown() {
    let Some(postfix) = postfix() else { return };
    let loads = || loads(&postfix);
    let case = case(&postfix, "etc/master.cf", &loads);
    let (_taken, port) = acts::taken_port();
    let command = case.dies(&with_a_port(&postfix, port));
    // Without this variable it would start on another config.
    let variable = format!("MAIL_CONFIG={}", postfix.daemon.path("etc").display());
    assert!(command.contains(&variable), "{command}");
    let typed = Daemon::spawn(
        folder(),
        std::process::Command::new("sh").args(["-c", &command]),
    );
    until("it serves the old config", || {
        assert!(typed.runs(), "{command}: {}", typed.log());
        greeting(&postfix).as_deref() == Some("one.example")
    });
}

#[test]
fn a_taken_port_ends_postfix_and_it_is_revived() {
    let Some(postfix) = postfix() else { return };
    let loads = || loads(&postfix);
    let case = case(&postfix, "etc/master.cf", &loads);
    let (_taken, port) = acts::taken_port();
    let variable = format!("MAIL_CONFIG={}", postfix.daemon.path("etc").display());
    case.is_revived(
        &with_a_port(&postfix, port),
        &["env", &variable, "{exe}", "{args}"],
    );
    assert_eq!(greeting(&postfix).as_deref(), Some("one.example"));
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(postfix) = postfix() else { return };
    let loads = || loads(&postfix);
    let case = case(&postfix, "etc/main.cf", &loads);
    case.continues(&config(&postfix, "two"));
    case.stops_and_dies(&config(&postfix, "two"), "");
}
