//! gunicorn.

use nix::sys::signal::Signal;

use super::{
    acts, started,
    web::{gunicorn, gunicorn_that_caches, gunicorn_titled},
    words,
};
use crate::support::{skipped, until};

#[test]
fn good_changes_converge_once_without_a_dropped_request() {
    let Some(web) = gunicorn() else { return };
    acts::converges(&web, true);
}

#[test]
fn a_title_that_setproctitle_writes_changes_nothing() {
    let Some(web) = gunicorn_titled() else { return };
    let title = words(web.daemon.pid()).join(" ");
    // gunicorn writes a title where the package python3-setproctitle is installed.
    if !title.starts_with("gunicorn: master") {
        skipped("`setproctitle` is missing: python3-setproctitle");
        return;
    }
    acts::converges(&web, true);
}

#[test]
fn the_printed_kind_is_a_group() {
    let Some(web) = gunicorn() else { return };
    acts::copied(&web);
}

#[test]
fn a_config_that_the_validator_rejects_touches_nothing() {
    let Some(web) = gunicorn() else { return };
    web.fleet("");
    acts::refuses(&web, &(web.config("two") + "workers = \"many\"\n"), "many");
    acts::refuses(&web, &(web.config("two") + "workers =\n"), "SyntaxError");
    // Its app, too, must be there.
    acts::refuses(
        &web,
        &web.config("two").replace("app:app", "none:app"),
        "none",
    );
}

#[test]
fn a_config_of_the_same_size_and_second_counts_as_changed() {
    let Some(web) = gunicorn_that_caches() else {
        return;
    };
    web.fleet("");
    for word in ["two", "six", "ten"] {
        assert_eq!(
            web.broadcast_config(&web.config(word)).expect(0).states(),
            ["confirmed"]
        );
        assert_eq!(web.word().as_deref(), Some(word));
    }
    assert!(web.daemon.path("__pycache__").is_dir());
}

#[test]
fn stopped_before_or_after_the_survey() {
    let Some(web) = gunicorn() else { return };
    acts::stopped_before(&web);
    acts::stopped_after(&web);
}

#[test]
fn stopped_until_the_rollback_begins() {
    let Some(web) = gunicorn() else { return };
    acts::stopped_until_the_undo(&web);
}

#[test]
fn killed_in_the_middle() {
    let Some(web) = gunicorn() else { return };
    acts::killed(&web);
}

#[test]
fn workers_that_lost_their_master_are_refused_by_name() {
    let Some(web) = gunicorn() else { return };
    // A young process gets time to install its handler.
    web.fleet("timeout = \"300ms\"");
    let workers = web.daemon.children();
    // A busy worker does not check for its master.
    let _open = [web.open(), web.open()];
    web.daemon.signal(Signal::SIGKILL);
    until("the master is gone", || !web.daemon.runs());
    let new = web.daemon.write("new", &web.config("two"));
    let result = web
        .daemon
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(5);
    for pid in &workers {
        assert!(
            result
                .stderr
                .contains(&format!("pid {pid} has no handler for SIGHUP")),
            "{}",
            result.stderr
        );
    }
    assert!(workers.iter().all(|pid| started(*pid).is_some()));
}

/// A sync worker closes its socket only after its last answer.
#[test]
fn a_worker_with_an_open_request_still_listens_and_is_waited_for() {
    let Some(web) = gunicorn() else { return };
    web.fleet("timeout = \"1s\"");
    web.is_settled();
    let old = web.daemon.children();
    let open = web.open();
    let result = web.broadcast_config(&web.config("three")).expect(6);
    let busy = *old.iter().find(|pid| started(**pid).is_some()).unwrap();
    let one = acts::only_instance(&result);
    assert_eq!(
        (one["failure"]["kind"].as_str(), web.word().as_deref()),
        (Some("foreign_listener"), Some("one"))
    );
    assert!(
        one["failure"]["text"]
            .as_str()
            .unwrap()
            .contains(&format!("pid {busy}")),
        "{one:#}"
    );
    web.daemon.write("go", "");
    until("it is gone", || started(busy).is_none());
    drop(open);
    std::fs::remove_file(web.daemon.path("go")).unwrap();
    // The timeout is that of its kind.
    web.fleet("");
    web.is_settled();
    let open = web.open();
    let result = web.watch(&web.config("three"), |event| {
        if event["event"] == "installed" {
            until("the new ones answer", || {
                web.word().as_deref() == Some("three")
            });
            web.daemon.write("go", "");
        }
    });
    assert_eq!(
        (result.expect(0).states(), web.word().as_deref()),
        (vec!["confirmed"], Some("three"))
    );
    drop(open);
}

/// A hook that fails. It does not run when a config is checked.
const RAISES: &str = "\ndef post_fork(server, worker):\n    raise RuntimeError(\"no\")\n";

#[test]
fn a_hook_that_raises_ends_gunicorn_and_the_restart_command_is_shown() {
    let Some(web) = gunicorn() else { return };
    acts::dies(&web, &(web.config("three") + RAISES));
}

#[test]
fn a_hook_that_raises_ends_gunicorn_and_it_is_revived() {
    let Some(web) = gunicorn() else { return };
    // A title would hide its arguments.
    let path = format!("PYTHONPATH={}", web.daemon.path("no-title").display());
    let revive = ["env", &path, "{exe}", "{args}"];
    acts::is_revived(&web, &(web.config("three") + RAISES), &revive);
}
