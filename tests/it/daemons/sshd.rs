//! sshd.

use super::{
    acts, program, started,
    web::{Web, sshd},
};
use crate::support::until;

#[test]
fn good_changes_converge_once() {
    let Some(web) = sshd() else { return };
    acts::converges(&web, false);
}

#[test]
fn the_printed_kind_is_a_group() {
    let Some(web) = sshd() else { return };
    acts::copied(&web);
}

#[test]
fn a_config_that_the_validator_rejects_touches_nothing() {
    let Some(web) = sshd() else { return };
    web.fleet("");
    acts::refuses(
        &web,
        &(web.config("two") + "PermitRotoLogin no\n"),
        "PermitRotoLogin",
    );
}

#[test]
fn stopped_before_or_after_the_survey() {
    let Some(web) = sshd() else { return };
    acts::stopped_before(&web);
    acts::stopped_after(&web);
}

#[test]
fn stopped_until_the_rollback_begins() {
    let Some(web) = sshd() else { return };
    acts::stopped_until_the_undo(&web);
}

#[test]
fn killed_in_the_middle() {
    let Some(web) = sshd() else { return };
    acts::killed(&web);
}

#[test]
fn an_open_connection_stays() {
    let Some(web) = sshd() else { return };
    web.fleet("");
    web.is_settled();
    let open = web.open();
    until("only that connection is left", || {
        web.daemon.children().len() == 1
    });
    let child = web.daemon.children()[0];
    let new = web.daemon.write("new", &web.config("three"));
    assert_eq!(
        web.daemon
            .broadcast(&["--config", new.to_str().unwrap()])
            .expect(0)
            .states(),
        ["confirmed"]
    );
    assert_eq!(
        (web.word().as_deref(), started(child).is_some()),
        (Some("three"), true)
    );
    drop(open);
    until("it is gone", || started(child).is_none());
}

/// Returns the old config with another port, which is the only one.
fn only_on(web: &Web, port: u16) -> String {
    web.config("two")
        .replace(&format!("Port {}\n", web.port), &format!("Port {port}\n"))
}

#[test]
fn a_taken_port_ends_sshd_and_the_restart_command_is_shown() {
    let Some(web) = sshd() else { return };
    let (_taken, port) = acts::taken_port();
    acts::dies(&web, &only_on(&web, port));
}

#[test]
fn a_taken_port_ends_sshd_and_it_is_revived() {
    let Some(web) = sshd() else { return };
    let (_taken, port) = acts::taken_port();
    let exe = program("sshd").unwrap();
    acts::is_revived(
        &web,
        &only_on(&web, port),
        &[exe.to_str().unwrap(), "-D", "-f", "{config}"],
    );
}
