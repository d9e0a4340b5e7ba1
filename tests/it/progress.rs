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

/// Starts a run on a terminal of 80 columns that waits for the only server, and its rollback too.
fn waits(fleet: &Fleet) -> Option<Terminal> {
    hangs(fleet, 0);
    let command = fleet.command(&["--set", "message=two", "--timeout", "60s"]);
    let terminal = Terminal::start(fleet, 80, &command)?;
    until("it is awaited", || terminal.text().contains("awaiting pid"));
    until("the stopped server has its signal", || {
        is_pending(fleet.pid(0))
    });
    Some(terminal)
}

/// Tells whether SIGHUP waits for a process that is stopped.
fn is_pending(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    u64::from_str_radix(pending.unwrap().trim(), 16).unwrap() & 1 == 1
}

#[test]
fn the_progress_line_says_how_long_an_instance_has_at_80_columns() {
    let fleet = Fleet::start(1);
    let Some(mut terminal) = waits(&fleet) else {
        return;
    };
    let limit = format!("awaiting pid {} for 1s of 60s", fleet.pid(0));
    until("it says the limit", || terminal.text().contains(&limit));
    fleet.signal(0, Signal::SIGCONT);
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
}

#[test]
fn the_first_interrupt_says_that_the_run_rolls_back_and_how_long_that_may_take() {
    let fleet = Fleet::start(1);
    let Some(mut terminal) = waits(&fleet) else {
        return;
    };
    let hello = terminal.hello(&fleet);
    kill(Pid::from_raw(hello), Signal::SIGINT).unwrap();
    for wanted in [
        "the run ends in order; Ctrl-C again leaves at once",
        "each instance has 60s to prove the old config",
        "Reverting [",
    ] {
        until(wanted, || terminal.text().contains(wanted));
    }
    fleet.signal(0, Signal::SIGCONT);
    assert_eq!(terminal.end(), Some(6), "{}", terminal.text());
}

#[test]
fn the_progress_line_counts_a_bake_down() {
    let fleet = Fleet::start(1);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{text}[group.rollout]\nbake = \"3s\"\n"),
    );
    let command = fleet.command(&["--set", "message=two"]);
    let Some(mut terminal) = Terminal::start(&fleet, 80, &command) else {
        return;
    };
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    let text = terminal.text();
    let places = ["3s left", "2s left", "1s left"].map(|left| text.find(left));
    assert!(places.iter().all(Option::is_some), "{text}");
    assert!(places.is_sorted(), "{text}");
}
