//! uWSGI with the plugin of Python.

use super::{
    Daemon, acts, command, folder, free_port, need,
    web::{Sort, Web, body},
};
use crate::support::write;

static UWSGI: Sort = Sort {
    kind: "uwsgi",
    matching: |dir, _| {
        format!(
            "{{ exe = \"uwsgi-core\", args = [\"{}/app.ini\"] }}",
            dir.display()
        )
    },
    tells: ("log", "...gracefully killing workers..."),
    struck: None,
    workers: 2,
    file: "app.ini",
    text: |dir, port, word| {
        let dir = dir.display();
        format!(
            "[uwsgi]\nplugins = python3\nmaster = true\nprocesses = 2\nhttp-socket = 127.0.0.1:{port}\nchdir = {dir}\n\
             disable-logging = true\nmodule = app:app\nenv = WORD={word}\n"
        )
    },
    ask: body,
    open: "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
};

/// An app that answers its word.
const APP: &str = r#"import os

def app(environ, start_response):
    word = os.environ["WORD"].encode()
    start_response("200 OK", [("Content-Length", str(len(word)))])
    return [word]
"#;

/// Starts uWSGI with two workers. The app is `app.py`. `more` is added to its config.
fn uwsgi(more: &str) -> Option<Web> {
    uwsgi_by(&["--ini"], more)
}

/// Does the same with these arguments before the path of its config.
fn uwsgi_by(args: &[&str], more: &str) -> Option<Web> {
    need("uwsgi_python3").then(|| {
        let (dir, port) = (folder(), free_port());
        write(&dir.path().join("app.py"), APP);
        write(&dir.path().join("raises.py"), "raise RuntimeError()\n");
        let config = write(
            &dir.path().join(UWSGI.file),
            &((UWSGI.text)(dir.path(), port, "one") + more),
        );
        let mut command = command("uwsgi");
        command.args(args).arg(config);
        Web::start(&UWSGI, port, Daemon::spawn(dir, &mut command))
    })
}

/// Returns a config that the validator passes and that uWSGI cannot serve.
fn with_a_port(web: &Web, port: u16) -> String {
    web.config("three") + &format!("http-socket = 127.0.0.1:{port}\n")
}

#[test]
fn good_changes_converge_once() {
    let Some(web) = uwsgi("") else { return };
    acts::converges(&web, false);
}

#[test]
fn the_printed_kind_is_a_group() {
    let Some(web) = uwsgi("") else { return };
    acts::copied(&web);
}

#[test]
fn a_config_that_the_validator_rejects_touches_nothing() {
    let Some(web) = uwsgi("") else { return };
    web.fleet("");
    let good = web.config("two");
    acts::refuses(&web, &good.replace("app:app", "none:app"), "no app loaded");
    acts::refuses(
        &web,
        &good.replace("app:app", "raises:app"),
        "no app loaded",
    );
    acts::refuses(
        &web,
        &good.replace("python3", "none"),
        "UNABLE to load uWSGI plugin",
    );
}

#[test]
fn an_app_is_validated_where_the_config_sends_the_log_to_a_file() {
    let log = "logto = out\n";
    let Some(web) = uwsgi(log) else { return };
    web.fleet("");
    let bad = web.config("two").replace("app:app", "none:app") + log;
    let result = web.broadcast_config(&bad).expect(4);
    assert!(result.stderr.contains("no app loaded"), "{}", result.stderr);
}

#[test]
fn a_config_that_no_option_names_is_found() {
    let Some(web) = uwsgi_by(&[], "") else { return };
    web.fleet("");
    assert_eq!(
        web.broadcast_config(&web.config("two")).expect(0).states(),
        ["confirmed"]
    );
    assert_eq!(web.word().as_deref(), Some("two"));
}

/// With `auto-procname` its command line is `uWSGI master`, and its environment is lost.
#[test]
fn a_config_is_validated_where_a_title_hides_the_arguments() {
    let title = "auto-procname = true\n";
    let Some(web) = uwsgi(title) else { return };
    web.daemon.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nkind = \"uwsgi\"\nmatch = {{ exe = \"uwsgi-core\", port = {} }}\nconfig = \"{}\"\n",
            web.port,
            web.file().display()
        ),
    );
    let good = web.config("two") + title;
    acts::refuses(&web, &good.replace("app:app", "none:app"), "no app loaded");
    assert_eq!(
        web.broadcast_config(&good).expect(0).states(),
        ["confirmed"]
    );
    assert_eq!(web.word().as_deref(), Some("two"));
}

#[test]
fn an_emperor_is_not_started_by_the_validator() {
    let Some(web) = uwsgi("") else { return };
    web.fleet("");
    acts::refuses(
        &web,
        &(web.config("two") + "emperor = vassals\n"),
        "it would start the vassals a second time",
    );
}

#[test]
fn stopped_before_or_after_the_survey() {
    let Some(web) = uwsgi("") else { return };
    acts::stopped_before(&web);
    acts::stopped_after(&web);
}

#[test]
fn stopped_until_the_rollback_begins() {
    let Some(web) = uwsgi("") else { return };
    // Its master looks after ended workers once a second.
    acts::stopped_until_the_undo_within(&web, "8s");
}

#[test]
fn killed_in_the_middle() {
    let Some(web) = uwsgi("") else { return };
    acts::killed(&web);
}

#[test]
fn a_taken_port_ends_uwsgi_and_the_restart_command_is_shown() {
    let Some(web) = uwsgi("") else { return };
    let (_taken, port) = acts::taken_port();
    acts::dies(&web, &with_a_port(&web, port));
}

#[test]
fn a_taken_port_ends_uwsgi_and_it_is_revived() {
    let Some(web) = uwsgi("") else { return };
    let (_taken, port) = acts::taken_port();
    acts::is_revived(&web, &with_a_port(&web, port), &["{exe}", "{args}"]);
}
