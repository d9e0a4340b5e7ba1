//! Commands that connect and misbehave, without a network.

use std::time::{Duration, Instant};

use super::{Testbed, text};

/// The output before the greeting of a login: a message of the day, and the lines of a terminal.
const BANNER: &str = "printf 'Welcome to %s\\r\\n\\n{\"motd\":true}\\n' \"$0\"; echo Lecture >&2;";

fn one_host(script: &str) -> Testbed {
    let testbed = Testbed::new("");
    testbed.fleet(&format!(
        "list = [\"a\"]\nsilence = \"5s\"\n{}",
        Testbed::script(script)
    ));
    testbed
}

#[test]
fn a_ready_host_has_its_version_and_groups() {
    let testbed = Testbed::new("");
    let script = format!("exec {}", testbed.agent());
    testbed.fleet(&format!("list = [\"a\"]\n{}", Testbed::script(&script)));
    let host = testbed.host(0);
    assert_eq!(host["state"], "ready");
    assert_eq!(host["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(host["groups"][0]["name"], "web");
    assert_eq!(host["groups"][0]["validator"], true);
}

#[test]
fn noise_before_the_greeting_does_no_harm() {
    let testbed = Testbed::new("");
    // A terminal on the way ends each line with `\r\n`.
    let script = format!("{BANNER} {} | sed -u 's/$/\\r/'", testbed.agent());
    testbed.fleet(&format!("list = [\"a\"]\n{}", Testbed::script(&script)));
    assert_eq!(testbed.host(0)["state"], "ready");
}

#[test]
fn a_command_that_prints_no_greeting_is_shown_with_its_last_line() {
    for (script, wanted) in [
        ("echo some garbage", "sent no greeting: some garbage"),
        ("true", "ended with 0 and sent no greeting"),
        ("echo 'on fire' >&2; exit 3", "exit code 3: on fire"),
        ("kill -9 $$", "a signal ended"),
        ("echo '{\"hello\":\"agent\"}'", "no greeting of an agent"),
        ("head -c 3000000 /dev/zero; exit 1", "exit code 1"),
    ] {
        let host = one_host(script).host(11);
        assert_eq!(host["state"], "unreachable", "{script}");
        assert!(text(&host, "why").contains(wanted), "{script}: {host}");
    }
}

#[test]
fn the_line_of_ssh_itself_is_the_reason() {
    let line = "ssh: connect to host 10.0.0.9 port 22: No route to host";
    let host = one_host(&format!("echo '{line}' >&2; exit 255")).host(11);
    assert_eq!(host["why"], line);
}

#[test]
fn the_line_is_shown_also_where_a_process_that_was_left_behind_holds_stderr() {
    let line = "ssh: connect to host 10.0.0.9 port 22: No route to host";
    let script = format!("echo '{line}' >&2; sleep 6 >/dev/null & exit 255");
    assert_eq!(one_host(&script).host(11)["why"], line);
}

#[test]
fn what_repairs_a_host_is_named() {
    for (script, wanted) in [
        (
            "echo 'sudo: a password is required' >&2; exit 1",
            "NOPASSWD",
        ),
        (
            "echo 'sudo: a terminal is required to read the password' >&2; exit 1",
            "NOPASSWD",
        ),
        (
            "echo 'sh: 1: /usr/bin/hello: not found' >&2; exit 127",
            "hello help install",
        ),
        (
            "echo 'sudo: /usr/bin/hello: command not found' >&2; exit 1",
            "hello help install",
        ),
        (
            "echo 'Host key verification failed.' >&2; exit 255",
            "answer yes: ssh a",
        ),
        (
            "echo 'root@a: Permission denied (publickey).' >&2; exit 255",
            "ssh-copy-id a",
        ),
    ] {
        let host = one_host(script).host(11);
        assert!(text(&host, "repair").contains(wanted), "{script}: {host}");
    }
}

#[test]
fn a_fault_without_a_known_repair_names_the_command_to_try() {
    let host = one_host("echo odd >&2; exit 9").host(11);
    let repair = text(&host, "repair");
    assert!(repair.starts_with("try what it runs: sh -c "), "{host}");
}

#[test]
fn the_error_of_an_agent_is_shown_and_not_how_it_is_used() {
    let script = format!("exec {} agent --stdoi", env!("CARGO_BIN_EXE_hello"));
    let host = one_host(&script).host(11);
    let why = text(&host, "why");
    assert!(why.contains("--stdoi") && why.contains("error:"), "{why}");
}

#[test]
fn a_command_that_says_nothing_is_silent_after_its_limit() {
    let began = Instant::now();
    let host = one_host("sleep 600").host(11);
    assert!(
        text(&host, "why").contains("no greeting within 5s"),
        "{host}"
    );
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_silent_command_and_what_it_started_are_ended() {
    let testbed = one_host("echo $$ > pids; sleep 600 & echo $! >> pids; wait");
    let mut command = testbed.command(&["hosts"]);
    command.current_dir(testbed.dir.path());
    let end = crate::support::run_to_end(&mut command);
    assert_eq!(end.code, Some(11), "{}", end.stderr);
    let pids = std::fs::read_to_string(testbed.path("pids")).unwrap();
    for pid in pids.lines() {
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        crate::support::until("the process is ended", is_gone);
    }
}

#[test]
fn a_connection_that_the_server_drops_is_made_again() {
    let testbed = Testbed::new("");
    let count = testbed.text_path("count");
    let script = format!(
        "echo x >> {count}; [ $(wc -l < {count}) -ge 3 ] && exec {}; \
         echo 'kex_exchange_identification: Connection closed by remote host' >&2; exit 255",
        testbed.agent()
    );
    testbed.fleet(&format!("list = [\"a\"]\n{}", Testbed::script(&script)));
    assert_eq!(testbed.host(0)["state"], "ready");
}

#[test]
fn another_fault_is_not_tried_again() {
    let testbed = Testbed::new("");
    let count = testbed.text_path("count");
    let script = format!("echo x >> {count}; echo 'No route to host' >&2; exit 255");
    testbed.fleet(&format!("list = [\"a\"]\n{}", Testbed::script(&script)));
    testbed.host(11);
    assert_eq!(std::fs::read_to_string(count).unwrap(), "x\n");
}

#[test]
fn another_version_is_skewed_and_named() {
    let greeting = r#"{"hello":"agent","v":7,"min":6,"version":"9.9.9","arch":"x","boot":"b","uid":0,"limits":{"line":1,"blob":1}}"#;
    let host = one_host(&format!("echo '{greeting}'; cat > /dev/null")).host(5);
    assert_eq!(host["state"], "skewed");
    assert!(text(&host, "why").contains("9.9.9"), "{host}");
    assert!(text(&host, "repair").contains("same version"), "{host}");
}

#[test]
fn a_host_with_another_name_is_refused() {
    let testbed = Testbed::new("[agent]\nname = \"b\"\n");
    let script = format!("exec {}", testbed.agent());
    testbed.fleet(&format!("list = [\"a\"]\n{}", Testbed::script(&script)));
    let host = testbed.host(5);
    assert_eq!(host["state"], "refused");
    assert!(text(&host, "why").contains("`b`"), "{host}");
}

#[test]
fn a_host_without_a_good_fleet_file_is_refused() {
    let testbed = Testbed::new("nonsense = 1\n");
    let script = format!("exec {}", testbed.agent());
    testbed.fleet(&format!("list = [\"a\"]\n{}", Testbed::script(&script)));
    let host = testbed.host(5);
    assert_eq!(host["state"], "refused");
    assert!(text(&host, "why").contains("nonsense"), "{host}");
}

#[test]
fn an_agent_ends_with_its_input_and_refuses_what_it_does_not_know() {
    let testbed = Testbed::new("");
    let script = format!(
        "printf '%s\\n' '{{\"q\":\"reboot\"}}' '{{\"q\":\"status\"}}' | {}",
        testbed.agent()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["hello"], "agent");
    assert_eq!(lines[1]["no"]["kind"], "unknown_frame");
    // Nothing is answered before the dialect is chosen.
    assert_eq!(lines[2]["no"]["kind"], "not_allowed");
}

#[test]
fn one_slow_host_holds_up_no_other() {
    let testbed = Testbed::new("");
    let script = format!("[ $0 = a-1 ] && sleep 600; exec {}", testbed.agent());
    testbed.fleet(&format!(
        "list = [\"a-[1-5]\"]\nsilence = \"5s\"\n{}",
        Testbed::script(&script)
    ));
    let (code, json) = testbed.hosts(&[]);
    assert_eq!(code, Some(11));
    let states: Vec<&str> = (0..5).map(|n| text(&json["hosts"][n], "state")).collect();
    assert_eq!(states, ["unreachable", "ready", "ready", "ready", "ready"]);
}
