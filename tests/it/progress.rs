//! The progress line on a real terminal: it moves, names the awaited instance, and is cleared.

use std::{os::unix::fs::PermissionsExt, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    pty::Terminal,
    support::{Fleet, until},
};

/// Stops the server `at` after the validation, so that the run waits for it.
fn hangs(fleet: &Fleet, at: usize) {
    let script = fleet.write(
        "validator",
        &format!("#!/bin/sh\nkill -STOP {}\n", fleet.pid(at)),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{text}validate = [\"{}\", \"{{candidate}}\"]\n",
            script.display()
        ),
    );
}

/// Returns the line of the cursor after all output. A `\r` and a new line start it anew.
fn last_line(text: &str) -> &str {
    text.rsplit(['\n', '\r']).next().unwrap_or_default()
}

#[test]
fn the_progress_line_moves_and_names_the_awaited_instance() {
    let fleet = Fleet::start(2);
    hangs(&fleet, 0);
    let Some(mut terminal) = Terminal::start(
        &fleet,
        100,
        &fleet.command(&["--set", "message=two", "--timeout", "60s"]),
    ) else {
        return;
    };
    let awaited = |seconds: u32| format!("awaiting pid {} for {seconds}s", fleet.pid(0));
    until("it is named", || {
        terminal.text().contains(&awaited(0)) || terminal.text().contains(&awaited(1))
    });
    until("the time moves", || terminal.text().contains(&awaited(2)));
    assert!(
        terminal.text().contains("of 1 awaiting") || terminal.text().contains("of 2 awaiting"),
        "{}",
        terminal.text()
    );
    fleet.signal(0, Signal::SIGCONT);
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    let text = terminal.text();
    let (_, after) = text.rsplit_once("Summary").unwrap();
    assert!(!after.contains("awaiting"), "{after:?}");
    assert!(!after.contains("Confirming"), "{after:?}");
}

#[test]
fn the_progress_line_names_the_validation_and_the_gate() {
    let fleet = Fleet::start(1);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let wait = |name: &str| {
        format!(
            "[\"/bin/sh\", \"-c\", \"until [ -e '{}' ]; do sleep 0.05; done\"]",
            fleet.path(name).display()
        )
    };
    fleet.write(
        "fleet.toml",
        &format!(
            "{text}validate = {}\n[rollout]\ngate = {}\n",
            wait("valid"),
            wait("judged")
        ),
    );
    let Some(mut terminal) =
        Terminal::start(&fleet, 100, &fleet.command(&["--set", "message=two"]))
    else {
        return;
    };
    until("it says that it validates", || {
        terminal.text().contains("Validating [") && terminal.text().contains("1 of 1")
    });
    fleet.write("valid", "");
    until("it says that the gate is asked", || {
        terminal.text().contains("Gate [")
    });
    fleet.write("judged", "");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
}

#[test]
fn the_progress_line_fits_a_narrower_terminal_and_is_cleared_on_interrupt() {
    let fleet = Fleet::start(1);
    hangs(&fleet, 0);
    let Some(mut terminal) = Terminal::start(
        &fleet,
        120,
        &fleet.command(&["--set", "message=two", "--timeout", "60s"]),
    ) else {
        return;
    };
    until("it is awaited", || terminal.text().contains("awaiting pid"));
    let hello = terminal.hello(&fleet);
    let tty = std::fs::read_link(format!("/proc/{hello}/fd/2")).unwrap();
    assert!(
        Command::new("stty")
            .arg("-F")
            .arg(tty)
            .args(["cols", "40"])
            .status()
            .unwrap()
            .success()
    );
    until("it is drawn without the bar", || {
        let text = terminal.text();
        last_line(text.trim_end()).contains("0 of 1") && !last_line(text.trim_end()).contains('░')
    });
    // The first interrupt rolls back, the second exits.
    kill(Pid::from_raw(hello), Signal::SIGINT).unwrap();
    until("it rolls back", || terminal.text().contains("Rolling back"));
    kill(Pid::from_raw(hello), Signal::SIGINT).unwrap();
    assert_eq!(terminal.end(), Some(7), "{}", terminal.text());
    let text = terminal.text();
    let (_, after) = text.rsplit_once("Summary").unwrap();
    assert!(!after.contains("awaiting"), "{after:?}");
    assert!(!after.contains("Reverting"), "{after:?}");
    fleet.signal(0, Signal::SIGCONT);
}
