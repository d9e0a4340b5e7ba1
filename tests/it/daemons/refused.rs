//! Programs that the signal would end, or that ignore it: refused by name, and still alive.

use super::{
    Daemon, command, folder,
    services::{plain_go, pong, redis, sleep},
};
use crate::support::{until, write};

/// Checks that the run refuses the signal for this reason.
fn refuses(daemon: &Daemon, matching: &str, more: &str, says: &str) {
    let text = format!(
        "version = 1\n[[group]]\nname = \"one\"\nmatch = {{ {matching} }}\nconfirm = []\ntimeout = \"200ms\"\n{more}\n"
    );
    daemon.write("fleet.toml", &text);
    let result = daemon.broadcast(&[]).expect(5);
    assert!(
        result.stderr.contains(&format!("pid {} ", daemon.pid())),
        "{}",
        result.stderr
    );
    assert!(result.stderr.contains(says), "{}", result.stderr);
    assert_eq!((result.states(), daemon.runs()), (vec!["refused"], true));
    let told = daemon.status().expect(7);
    assert_eq!(told.json["instances"][0]["pid"], daemon.pid());
}

#[test]
fn redis_is_refused_with_any_group() {
    let Some(redis) = redis() else { return };
    // Its executable is that of its checker, with another name on the command line.
    let matching = format!(
        "exe = \"redis-check-rdb\", args = [\"127.0.0.1:{}\"]",
        redis.port
    );
    refuses(&redis.daemon, &matching, "", "is not declared to reload");
    refuses(&redis.daemon, &matching, "reloads = true", "ignores SIGHUP");
    assert!(pong(&redis));
}

#[test]
fn sleep_is_refused_with_any_group() {
    let sleep = sleep();
    let matching = format!(
        "exe = \"sleep\", args = [\"{}\"]",
        super::words(sleep.pid())[1]
    );
    refuses(&sleep, &matching, "", "is not declared to reload");
    refuses(
        &sleep,
        &matching,
        "reloads = true",
        "has no handler for SIGHUP",
    );
}

#[test]
fn a_go_program_without_a_signal_handler_is_refused_unless_declared_to_reload() {
    let Some(go) = plain_go() else { return };
    let matching = format!(
        "exe = \"prometheus-node-exporter\", args = [\"--web.listen-address=127.0.0.1:{}\"]",
        go.port
    );
    refuses(&go.daemon, &matching, "", "is not declared to reload");
    assert!(go.get("/").is_some());
}

#[test]
fn a_process_that_briefly_blocks_the_signal_is_reloaded_and_status_agrees() {
    let script = "import signal, time\nsignal.signal(signal.SIGHUP, lambda *_: None)\n\
                  while True:\n  for how in (signal.SIG_BLOCK, signal.SIG_UNBLOCK):\n    signal.pthread_sigmask(how, {signal.SIGHUP})\n    time.sleep(0.05)\n";
    let dir = folder();
    let path = write(&dir.path().join("blocks.py"), script);
    let daemon = Daemon::spawn(dir, command("python3").arg(&path));
    let matching = format!("script = \"{}\"", path.display());
    daemon.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"one\"\nmatch = {{ {matching} }}\nreloads = true\nconfirm = []\n"));
    until("it has its handler", || daemon.status().code == 0);
    for _ in 0..8 {
        daemon.status().expect(0);
    }
}
