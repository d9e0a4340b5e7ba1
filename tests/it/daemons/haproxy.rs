//! HAProxy.

use nix::sys::signal::Signal;

use super::{
    Daemon, acts, command, folder, free_port,
    web::{HAPROXY, haproxy},
};
use crate::support::{until, write};

#[test]
fn good_changes_converge_once_without_a_dropped_request() {
    let Some(web) = haproxy() else { return };
    acts::converges(&web, true);
}

#[test]
fn the_printed_kind_is_a_group() {
    let Some(web) = haproxy() else { return };
    acts::copied(&web);
}

#[test]
fn a_config_that_the_validator_rejects_touches_nothing() {
    let Some(web) = haproxy() else { return };
    web.fleet("");
    acts::refuses(
        &web,
        &web.config("two").replace("mode http\n", "mode htpp\n"),
        "unknown proxy mode 'htpp'",
    );
}

#[test]
fn a_config_with_a_taken_port_is_rolled_back() {
    let Some(web) = haproxy() else { return };
    let (_taken, port) = acts::taken_port();
    acts::does_not_load(
        &web,
        &web.config("two").replace(
            "\n  http-request wait",
            &format!(",127.0.0.1:{port}\n  http-request wait"),
        ),
    );
}

#[test]
fn the_next_signal_waits_until_haproxy_has_loaded() {
    let Some(web) = haproxy() else { return };
    let (_taken, port) = acts::taken_port();
    web.fleet("");
    let new = web.daemon.write("new", &web.config("two"));
    // A signal that arrives while it tries a port is lost.
    acts::overwrite(
        &web,
        &web.config("one").replace(
            "\n  http-request wait",
            &format!(",127.0.0.1:{port}\n  http-request wait"),
        ),
    );
    web.daemon.signal(Signal::SIGHUP);
    until("it loads", || !web.takes_sighup());
    assert_eq!(
        web.daemon
            .broadcast(&["--config", new.to_str().unwrap()])
            .expect(0)
            .states(),
        ["confirmed"]
    );
    assert_eq!((web.word().as_deref(), web.sighups()), (Some("two"), 2));
}

#[test]
fn stopped_before_or_after_the_survey() {
    let Some(web) = haproxy() else { return };
    acts::stopped_before(&web);
    acts::stopped_after(&web);
}

#[test]
fn stopped_until_the_rollback_begins() {
    let Some(web) = haproxy() else { return };
    acts::stopped_until_the_undo(&web);
}

#[test]
fn killed_in_the_middle() {
    let Some(web) = haproxy() else { return };
    acts::killed(&web);
}

#[test]
fn a_worker_with_an_open_connection_is_named() {
    let Some(web) = haproxy() else { return };
    acts::drains(&web);
}

#[test]
fn a_process_without_a_master_is_no_match() {
    if !super::need("haproxy") {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let config = write(
        &dir.path().join("haproxy.cfg"),
        &(HAPROXY.text)(dir.path(), port, "one"),
    );
    let daemon = Daemon::spawn(dir, command("haproxy").args(["-db", "-f"]).arg(&config));
    let says = || {
        crate::support::try_get(&format!("127.0.0.1:{port}"), "/")
            .is_ok_and(|(_, body)| body == "one")
    };
    until("it answers", says);
    daemon.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"web\"\nkind = \"haproxy\"\nmatch = {{ exe = \"haproxy\", args = [[\"-W\", \"-Ws\"], \"{}\"] }}\n",
            config.display()
        ),
    );
    let new = daemon.write("new", &(HAPROXY.text)(daemon.dir.path(), port, "two"));
    let result = daemon
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(3);
    assert!(
        result.stderr.contains(&format!(
            "pid {} has no `-W` or `-Ws` among its arguments",
            daemon.pid()
        )),
        "{}",
        result.stderr
    );
    assert!(says(), "{}", daemon.log());
    assert!(daemon.runs(), "{}", daemon.log());
    assert!(!daemon.log().contains("SIGHUP"), "{}", daemon.log());
}

#[test]
fn an_old_worker_that_still_listens_is_a_foreign_listener() {
    let Some(web) = haproxy() else { return };
    acts::old_one_listens(&web);
}
