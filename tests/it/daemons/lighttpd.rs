//! lighttpd under `hello broadcast`, by the shipped kind. It is one process, and takes SIGUSR1.

use super::{
    Daemon, acts, case::Case, command, folder, free_port, need, services::Service, web::body,
};
use crate::support::{until, write};

/// Returns a config that serves this word.
fn config(lighttpd: &Service, word: &str) -> String {
    text(
        &lighttpd.daemon.dir.path().display().to_string(),
        lighttpd.port,
        word,
    )
}

fn text(dir: &str, port: u16, word: &str) -> String {
    format!(
        "server.modules = ( \"mod_status\" )\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\nserver.errorlog = \"{dir}/error.log\"\n\
         server.document-root = \"{dir}/{word}\"\nindex-file.names = ( \"word\" )\nstatus.status-url = \"/server-status\"\n"
    )
}

/// Starts lighttpd. It serves `one`.
fn lighttpd() -> Option<Service> {
    need("lighttpd").then(|| {
        let (dir, port) = (folder(), free_port());
        for word in ["one", "three", "four"] {
            std::fs::create_dir(dir.path().join(word)).unwrap();
            write(&dir.path().join(word).join("word"), word);
        }
        let config = write(
            &dir.path().join("lighttpd.conf"),
            &text(&dir.path().display().to_string(), port, "one"),
        );
        let mut command = command("lighttpd");
        command.arg("-D").arg("-f").arg(config);
        Service::start(Daemon::spawn(dir, &mut command), port, |s| {
            body(s.port).is_some()
        })
    })
}

/// Returns how often it has loaded its config.
fn loads(lighttpd: &Service) -> String {
    let log = std::fs::read_to_string(lighttpd.daemon.path("error.log")).unwrap_or_default();
    log.matches("server started").count().to_string()
}

fn case<'a>(lighttpd: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    Case::of(&lighttpd.daemon, ("lighttpd", "lighttpd.conf"), loads)
}

#[test]
fn lighttpd_loads_good_configs_without_a_dropped_request() {
    let Some(lighttpd) = lighttpd() else { return };
    let loads = || loads(&lighttpd);
    let case = case(&lighttpd, &loads);
    let load = acts::Load::on(lighttpd.port, body);
    for word in ["three", "four"] {
        case.takes(&config(&lighttpd, word), "reloaded");
        assert_eq!(body(lighttpd.port).as_deref(), Some(word));
    }
    let (answered, dropped) = load.end();
    assert!(dropped.is_empty(), "{answered} answered; {dropped:?}");
    assert!(answered > 100, "{answered} answered");
    case.settles();
}

#[test]
fn lighttpd_refuses_bad_configs() {
    let Some(lighttpd) = lighttpd() else { return };
    let loads = || loads(&lighttpd);
    let case = case(&lighttpd, &loads);
    let good = config(&lighttpd, "three");
    case.refuses(&(good.clone() + "nonsense = (\n"), "parser failed");
    case.refuses(&good.replace("mod_status", "mod_none"), "mod_none.so");
}

#[test]
fn a_lighttpd_without_its_status_page_is_refused_before_the_run() {
    let Some(lighttpd) = lighttpd() else { return };
    let loads = || loads(&lighttpd);
    let case = case(&lighttpd, &loads);
    let page = "[[group.confirm]]\nhttp = \"http://{listen}/none\"\nregex = \"Uptime: ([0-9]+)\"\ndecreased = true\n";
    let case = case.with_facts(page.into());
    case.untouched(5, &["404"], || case.change(&config(&lighttpd, "three")));
}

#[test]
fn lighttpd_ignores_a_key_that_it_does_not_know() {
    let Some(lighttpd) = lighttpd() else { return };
    let loads = || loads(&lighttpd);
    let case = case(&lighttpd, &loads);
    let text = config(&lighttpd, "three") + "server.nonsense = \"x\"\n";
    case.takes(&text, "reloaded");
}

/// Returns a config that `lighttpd -tt` passes and that lighttpd cannot serve.
fn with_a_port(lighttpd: &Service, port: u16) -> String {
    config(lighttpd, "three") + &format!("$SERVER[\"socket\"] == \"127.0.0.1:{port}\" {{ }}\n")
}

#[test]
fn a_taken_port_ends_lighttpd_and_the_restart_command_is_shown() {
    let Some(lighttpd) = lighttpd() else { return };
    let loads = || loads(&lighttpd);
    let case = case(&lighttpd, &loads);
    let (_taken, port) = acts::taken_port();
    let command = case.dies(&with_a_port(&lighttpd, port));
    let typed = Daemon::spawn(
        folder(),
        std::process::Command::new("sh").args(["-c", &command]),
    );
    until("it serves the old config", || {
        assert!(typed.runs(), "{command}: {}", typed.log());
        body(lighttpd.port).as_deref() == Some("one")
    });
}

#[test]
fn a_taken_port_ends_lighttpd_and_it_is_revived() {
    let Some(lighttpd) = lighttpd() else { return };
    let loads = || loads(&lighttpd);
    let case = case(&lighttpd, &loads);
    let (_taken, port) = acts::taken_port();
    case.is_revived(&with_a_port(&lighttpd, port), &["{exe}", "{args}"]);
    assert_eq!(body(lighttpd.port).as_deref(), Some("one"));
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(lighttpd) = lighttpd() else { return };
    let loads = || loads(&lighttpd);
    let case = case(&lighttpd, &loads);
    case.continues(&config(&lighttpd, "three"));
    case.stops_and_dies(&config(&lighttpd, "three"), "");
}
