//! The operator of a run over hosts, as its coordinator claims, on each host.

use std::{os::unix::net::UnixDatagram, process::Command, time::Duration};

use serde_json::Value;

use super::bed::{Bed, rule};
use crate::support::{run_to_end, skipped, until};

/// Makes the agents of a host run as one that this user called sudo for.
fn called_by(bed: &Bed, host: usize, user: &str) {
    let path = bed.path(&format!("h{host}.sh"));
    let script = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("export SUDO_USER={user}\n{script}")).unwrap();
}

/// Returns the first event of the last run of a host.
fn began(bed: &Bed, host: usize) -> Value {
    let mut history = bed.plain(&bed.hosts[host].path("state"), &["history", "-o", "json"]);
    let end = run_to_end(&mut history);
    end.json["runs"][0]["began"].clone()
}

fn broadcast_by(bed: &Bed, user: &str) -> Command {
    let mut broadcast = bed.command(&["broadcast", "--set", "message=two"]);
    broadcast
        .env("SUDO_USER", user)
        .env("CI_JOB_URL", "https://ci.example/job/7");
    broadcast
}

#[test]
fn a_host_keeps_the_claimed_operator_beside_its_own() {
    let bed = Bed::start(&[1]);
    called_by(&bed, 0, "deploy");
    let end = run_to_end(&mut broadcast_by(&bed, "carol"));
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    let began = began(&bed, 0);
    assert_eq!(began["operator"]["sudo_user"], "deploy", "{began:#}");
    assert_eq!(began["claimed"]["sudo_user"], "carol", "{began:#}");
    assert_eq!(began["claimed"]["ci_job"], "https://ci.example/job/7");
    assert_eq!(began["claimed"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(began["claimed"]["host"].is_string(), "{began:#}");
    // The index of the coordinator has its own operator, and no claim.
    let here = bed.run(&["history"]);
    let here = &here.json["runs"][0]["began"];
    assert_eq!(here["operator"]["sudo_user"], "carol", "{here:#}");
    assert_eq!(here["claimed"], Value::Null);
}

#[test]
fn show_and_history_of_a_host_name_both_operators() {
    let bed = Bed::start(&[1]);
    called_by(&bed, 0, "deploy");
    assert_eq!(run_to_end(&mut broadcast_by(&bed, "carol")).code, Some(0));
    for args in [&["show", "@"][..], &["history"], &["history", "@"]] {
        let output = bed
            .plain(&bed.hosts[0].path("state"), args)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("deploy"), "{args:?}: {text}");
        assert!(text.contains("claimed uid "), "{args:?}: {text}");
        assert!(text.contains("carol"), "{args:?}: {text}");
    }
}

#[test]
fn a_name_with_control_characters_or_without_an_end_is_cleaned_and_cut() {
    let bed = Bed::start(&[1]);
    let name = format!("a\u{1b}[2J\r\nb\u{202e}{}", "x".repeat(3000));
    let end = run_to_end(&mut broadcast_by(&bed, &name));
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    let began = began(&bed, 0);
    let claimed = began["claimed"]["sudo_user"].as_str().unwrap();
    assert!(
        claimed.starts_with("a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}x"),
        "{claimed}"
    );
    assert!(claimed.len() <= 256, "{}", claimed.len());
}

#[test]
fn a_refusal_by_a_lock_names_the_claimed_operator_while_a_run_is_under_way() {
    let bed = Bed::start(&[1, 1]);
    let (waits, go) = (bed.path("waits"), bed.path("go"));
    bed.gate(&waits, &go);
    let mut first = broadcast_by(&bed, "carol").spawn().unwrap();
    until("the gate runs", || waits.exists());
    let run = bed.open_runs(0)[0].clone();
    let mut second = bed.command_of("other", &["broadcast", "--set", "message=three"]);
    let end = run_to_end(&mut second);
    std::fs::write(&go, "").unwrap();
    assert!(first.wait().unwrap().success());
    bed.wait_for_agents();
    assert_eq!(end.code, Some(9), "{:#} {}", end.json, end.stderr);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(
        reason.contains(&format!("run {run}, claimed operator uid ")),
        "{reason}"
    );
    assert!(reason.contains("carol"), "{reason}");
}

#[test]
fn a_refusal_by_a_lock_names_the_claimed_operator_before_anything_is_recorded() {
    let bed = Bed::start(&[1]);
    let fleet = std::fs::read_to_string(bed.path("fleet.toml")).unwrap();
    let patient = fleet.replace("silence = \"2s\"", "silence = \"60s\"");
    std::fs::write(bed.path("fleet.toml"), patient).unwrap();
    // The host has surveyed, and never hears of its waves.
    let plan = r#""q":"plan""#;
    bed.between(0, &[rule("drop", ">", plan)]);
    let mut first = broadcast_by(&bed, "carol").spawn().unwrap();
    until("the host has surveyed", || bed.wire(0).contains(plan));
    assert!(bed.open_runs(0).is_empty(), "no journal has begun");
    let mut second = bed.command_of("other", &["broadcast", "--set", "message=three"]);
    let end = run_to_end(&mut second);
    first.kill().unwrap();
    first.wait().unwrap();
    bed.wait_for_agents();
    assert_eq!(end.code, Some(9), "{:#} {}", end.json, end.stderr);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(
        reason.contains("claimed operator") && reason.contains("carol"),
        "{reason}"
    );
    bed.assert_untouched(0);
}

#[test]
fn syslog_of_a_host_has_both_operators() {
    let bed = Bed::start(&[1]);
    called_by(&bed, 0, "deploy");
    let (log, dev) = (bed.path("log"), bed.path("dev"));
    let socket = UnixDatagram::bind(&log).unwrap();
    let limit = Duration::from_secs(30);
    socket.set_read_timeout(Some(limit)).unwrap();
    std::fs::create_dir(&dev).unwrap();
    if !Command::new("unshare")
        .args(["-m", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        skipped("no mount namespace is to be had");
        return;
    }
    // A private /dev, whose log is the one above.
    let script = "set -e; for f in null zero urandom; do touch \"$0/$f\"; mount --bind /dev/$f \"$0/$f\"; done; mount --rbind \"$0\" /dev; ln -sf \"$1\" /dev/log; shift; exec \"$@\"";
    let broadcast = bed.command(&["broadcast", "--set", "message=two"]);
    let mut unshare = Command::new("unshare");
    unshare
        .args(["-m", "sh", "-c", script])
        .args([&dev, &log])
        .arg(broadcast.get_program())
        .args(broadcast.get_args())
        .env("HOME", bed.dir.path())
        .env("SUDO_USER", "carol");
    let end = run_to_end(&mut unshare);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    let heard = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    // The index of the coordinator leaves a line as well.
    let line = std::iter::repeat_with(heard).find(|line| line.contains(" host=h0 "));
    let line = line.unwrap();
    assert!(line.contains(" sudo_user=deploy "), "{line}");
    assert!(
        line.contains(" claimed_by=\"uid ") && line.contains("carol"),
        "{line}"
    );
}
