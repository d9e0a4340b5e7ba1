//! The order of waves, the options that change it, and restarts between two waves.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Fleet, RUN_LIMIT, get, until};

/// Runs a command. Returns its events, the final object last, and its exit code. `on` sees each
/// event when it is read.
pub(crate) fn run(mut command: Command, mut on: impl FnMut(&Value)) -> (Vec<Value>, i32) {
    let mut child = command
        .args(["-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (tell, heard) = mpsc::channel();
    thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| tell.send(line))
    });
    let mut all = Vec::new();
    loop {
        match heard.recv_timeout(RUN_LIMIT) {
            Ok(line) => all.push(serde_json::from_str(&line).unwrap()),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return (all, child.wait().unwrap().code().unwrap());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("nothing within {RUN_LIMIT:?}, after {all:#?}");
            }
        }
        on(all.last().unwrap());
    }
}

/// Returns wave number, pids and event index of every forward batch, in order.
fn intents(events: &[Value]) -> Vec<(usize, u64, Vec<i32>)> {
    let pids = |e: &Value| {
        e["pids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| i32::try_from(p[0].as_i64().unwrap()).unwrap())
            .collect::<Vec<_>>()
    };
    let forth = events
        .iter()
        .enumerate()
        .filter(|(_, e)| e["event"] == "intent" && e["direction"] == "forward");
    forth
        .map(|(at, e)| (at, e["wave"].as_u64().unwrap(), pids(e)))
        .filter(|(_, _, pids)| !pids.is_empty())
        .collect()
}

/// Returns the number of instances of `group` in each wave.
fn sizes(result: &Value, group: &str) -> Vec<(u64, usize)> {
    let mut waves: Vec<u64> = result["instances"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|i| i["group"] == group)
        .map(|i| i["wave"].as_u64().unwrap())
        .collect();
    waves.sort_unstable();
    waves
        .chunk_by(u64::eq)
        .map(|same| (same[0], same.len()))
        .collect()
}

/// Returns the index of a server in the fleet.
pub(crate) fn server(fleet: &Fleet, pid: i32) -> usize {
    (0..fleet.len()).find(|at| fleet.pid(*at) == pid).unwrap()
}

/// Returns the first server of a wave, as a dry run lists it.
fn first_of(fleet: &Fleet, wave: u64, args: &[&str]) -> usize {
    let result = fleet.broadcast(&[&["--dry-run"], args].concat()).expect(0);
    let found = result.json["instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["wave"] == wave)
        .unwrap();
    server(
        fleet,
        i32::try_from(found["pid"].as_i64().unwrap()).unwrap(),
    )
}

/// Returns a group of a `fleet.toml` for the servers of this config, with further keys.
fn group(fleet: &Fleet, name: &str, config: &str, more: &str) -> String {
    let exe = fleet.exe().file_name().unwrap().to_str().unwrap();
    let matching = format!(
        "match = {{ exe = \"{exe}\", args = [\"serve\", \"{}\"] }}",
        fleet.path(config).display()
    );
    format!(
        "[[group]]\nname = \"{name}\"\nkind = \"hello\"\ntimeout = \"3s\"\n{matching}\n{more}\n"
    )
}

/// Returns a validator that passes and stops this server. The server takes no signal until the test
/// continues it.
pub(crate) fn stops(fleet: &Fleet, pid: i32) -> String {
    let script = fleet.write("validator", &format!("#!/bin/sh\nkill -STOP {pid}\n"));
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("validate = [\"{}\"]\n", script.display())
}

/// Adds keys to the only group of a fleet.
pub(crate) fn add_keys(fleet: &Fleet, more: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &(text + more));
}

/// Waits until SIGHUP is pending for a stopped process.
pub(crate) fn has_its_signal(pid: i32) {
    until("it has its signal", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let pending = status
            .lines()
            .find_map(|line| line.strip_prefix("ShdPnd:"))
            .unwrap();
        u64::from_str_radix(pending.trim(), 16).unwrap() & 1 == 1
    });
}

pub(crate) fn reported_config(fleet: &Fleet, at: usize) -> Value {
    serde_json::from_str(&get(fleet.url(at), "/-/config").1).unwrap()
}

#[test]
fn no_wave_begins_before_the_one_before_it_is_proven() {
    let fleet = Fleet::start(5);
    let canary = first_of(&fleet, 1, &["--set", "message=x"]);
    add_keys(&fleet, &stops(&fleet, fleet.pid(canary)));
    let others: Vec<usize> = (0..5).filter(|at| *at != canary).collect();
    let mut continued = None;
    let (events, code) = run(
        fleet.command(&["--waves", "1,40%", "--timeout", "30s", "--set", "message=x"]),
        |event| {
            if event["event"] == "installed" && continued.is_none() {
                has_its_signal(fleet.pid(canary));
                others.iter().for_each(|at| {
                    assert_eq!(
                        reported_config(&fleet, *at)["last_attempt"]["seq"],
                        1,
                        "no other instance has reloaded"
                    )
                });
                continued = Some(jiff::Timestamp::now());
                fleet.signal(canary, Signal::SIGCONT);
            }
        },
    );
    assert_eq!(
        (code, fleet.bodies(), fleet.attempts()),
        (0, vec!["x".into(); 5], vec![2; 5])
    );
    let waves = intents(&events);
    assert_eq!(
        waves
            .iter()
            .map(|(_, wave, pids)| (*wave, pids.len()))
            .collect::<Vec<_>>(),
        [(1, 1), (2, 1), (3, 3)]
    );
    assert_eq!(waves[0].2, [fleet.pid(canary)]);
    let mut all: Vec<i32> = waves.iter().flat_map(|(_, _, pids)| pids.clone()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 5, "each instance once");
    for (at, _, pids) in &waves {
        let proven = |pid: &i32| {
            events
                .iter()
                .position(|e| {
                    e["event"] == "instance" && e["pid"] == *pid && e["outcome"] == "confirmed"
                })
                .unwrap()
        };
        for (_, _, earlier) in waves.iter().take_while(|(earlier, ..)| earlier < at) {
            assert!(
                earlier.iter().all(|pid| proven(pid) < *at),
                "{pids:?} before {earlier:?}"
            );
        }
    }
    for at in others {
        let tried: jiff::Timestamp = reported_config(&fleet, at)["last_attempt"]["at"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            tried > continued.unwrap(),
            "{tried}: it was signalled while the first was stopped"
        );
    }
    assert_eq!(
        events.iter().find(|e| e["event"] == "waves").unwrap()["instances"],
        serde_json::json!([1, 1, 3])
    );
}

#[test]
fn each_wave_is_announced_unless_there_is_only_one() {
    let fleet = Fleet::start(3);
    let screen =
        |args: &[&str]| String::from_utf8(fleet.command(args).output().unwrap().stderr).unwrap();
    let result = screen(&["--set", "message=x"]);
    let places: Vec<usize> = [
        "Wave 1/2: 1 instance\n",
        "(1/1)",
        "Wave 2/2: 2 instances\n",
        "(2/2)",
    ]
    .iter()
    .map(|text| result.find(text).unwrap())
    .collect();
    assert!(places.is_sorted(), "{result}");
    let result = screen(&["--waves", "100%", "--set", "message=y"]);
    assert!(result.contains("(3/3)"), "{result}");
    assert!(!result.contains("Wave"), "{result}");
}

#[test]
fn a_group_runs_after_the_groups_that_it_names() {
    let mut fleet = Fleet::start(2);
    fleet.write("other.toml", &fleet.text());
    fleet.serve_from("other.toml");
    fleet.serve_from("other.toml");
    let both = |after: &str| {
        fleet.write(
            "fleet.toml",
            &format!(
                "version = 1\n{}{}",
                group(&fleet, "a", "web.toml", after),
                group(&fleet, "b", "other.toml", "")
            ),
        )
    };
    both("after = [\"b\"]");
    let (events, code) = run(fleet.command(&["--all", "--set", "message=x"]), |_| {});
    let order: Vec<Vec<usize>> = intents(&events)
        .into_iter()
        .map(|(_, _, pids)| {
            pids.into_iter()
                .map(|pid| server(&fleet, pid) / 2)
                .collect()
        })
        .collect();
    assert_eq!(
        (code, order),
        (0, vec![vec![1], vec![1], vec![0], vec![0]]),
        "the servers of b are the later ones"
    );
    let result = events.last().unwrap();
    assert_eq!(
        (sizes(result, "b"), sizes(result, "a")),
        (vec![(1, 1), (2, 1)], vec![(3, 1), (4, 1)])
    );
    // Instances outside the run are not waited for.
    let result = fleet.broadcast(&["a", "--set", "message=y"]).expect(0);
    assert_eq!(sizes(&result.json, "a"), [(1, 1), (2, 1)]);
    both("");
    let result = fleet.broadcast(&["--all", "--set", "message=z"]).expect(0);
    assert_eq!(
        (sizes(&result.json, "a"), sizes(&result.json, "b")),
        (vec![(1, 1), (2, 1)], vec![(1, 1), (2, 1)]),
        "side by side"
    );
    both("after = \"b\"");
    // No instance of b needs a signal, so none is waited for.
    let result = fleet
        .broadcast(&[
            "--all",
            "--config",
            &format!("b={}", fleet.path("other.toml").display()),
            "--config",
            &format!(
                "a={}",
                fleet
                    .write("new.toml", "message = \"v\"\nlisten = \"127.0.0.1:0\"\n")
                    .display()
            ),
        ])
        .expect(0);
    assert_eq!(
        (sizes(&result.json, "b"), sizes(&result.json, "a")),
        (vec![(1, 2)], vec![(1, 1), (2, 1)])
    );
}

#[test]
fn group_keys_override_the_fleet_and_options_override_both() {
    let mut fleet = Fleet::start(4);
    fleet.write("other.toml", &fleet.text());
    fleet.serve_from("other.toml");
    fleet.serve_from("other.toml");
    let own = group(
        &fleet,
        "b",
        "other.toml",
        "[group.rollout]\nwaves = \"100%\"",
    );
    let groups = group(&fleet, "a", "web.toml", "") + &own;
    fleet.write(
        "fleet.toml",
        &format!("version = 1\n[rollout]\nwaves = [1, \"50%\"]\n{groups}"),
    );
    let waves = |args: &[&str]| {
        let result = fleet
            .broadcast(&[&["--dry-run", "--all", "--set", "message=x"], args].concat())
            .expect(0)
            .json;
        (sizes(&result, "a"), sizes(&result, "b"))
    };
    assert_eq!(waves(&[]), (vec![(1, 1), (2, 1), (3, 2)], vec![(1, 2)]));
    assert_eq!(
        waves(&["--waves", "75%"]),
        (vec![(1, 3), (2, 1)], vec![(1, 2)])
    );
    assert_eq!(
        waves(&["--waves", "1"]),
        (vec![(1, 1), (2, 3)], vec![(1, 1), (2, 1)])
    );
    // The effect of the signal on a program without a kind is unknown, so the run stays careful.
    let confirm = "reloads = true\nconfig = \"{arg:--config}\"\n[[group.confirm]]\nhttp = \"http://{listen}/\"\nequals = \"{candidate.message}\"\n";
    let unknown = group(&fleet, "a", "web.toml", confirm).replace("kind = \"hello\"\n", "");
    fleet.write("fleet.toml", &format!("version = 1\n{unknown}{own}"));
    assert_eq!(
        waves(&["--waves", "100%"]),
        (vec![(1, 1), (2, 3)], vec![(1, 2)])
    );
    for (flags, says) in [
        (["--waves", "0"], "a wave of 0 has no instances"),
        (["--waves", "50%,25%"], "25% after 50% adds no instances"),
        (["--waves", "1,all"], "percentage"),
        (["--max-failures", "101%"], "percentage"),
        (
            ["--on-failure", "never"],
            "[possible values: revert, stop, continue]",
        ),
    ] {
        let result = fleet
            .broadcast(&[&["--all", "--set", "message=x"][..], &flags].concat())
            .expect(2);
        assert!(result.stderr.contains(says), "{}", result.stderr);
    }
    assert_eq!(fleet.attempts(), [1; 6]);
}

#[test]
fn options_decide_the_failure_budget_and_the_action_on_failure() {
    let fleet = Fleet::start(4);
    let victim = first_of(&fleet, 2, &["--waves", "1,50%", "--set", "message=x"]);
    let pid = fleet.pid(victim);
    let validate = stops(&fleet, pid);
    let base = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap() + &validate;
    let mut now = vec!["one".to_owned(); 4];
    for (message, rollout, flags, code, states) in [
        (
            "a",
            "",
            &[][..],
            6,
            ["reverted", "reverted", "untouched", "untouched"],
        ),
        (
            "b",
            "",
            &["--max-failures", "25%"],
            8,
            ["confirmed", "confirmed", "confirmed", "reverted"],
        ),
        // The option overrides the budget of a group. 24 % of four is zero.
        (
            "c",
            "max_failures = 4",
            &["--max-failures", "24%"],
            6,
            ["reverted", "reverted", "untouched", "untouched"],
        ),
        (
            "d",
            "",
            &["--on-failure", "stop"],
            8,
            ["confirmed", "reverted", "untouched", "untouched"],
        ),
        (
            "e",
            "",
            &["--on-failure", "continue"],
            8,
            ["confirmed", "confirmed", "confirmed", "reverted"],
        ),
        (
            "f",
            "on_failure = \"continue\"",
            &["--on-failure", "revert"],
            6,
            ["reverted", "reverted", "untouched", "untouched"],
        ),
    ] {
        fleet.write(
            "fleet.toml",
            &format!("{base}[group.rollout]\nwaves = [1, \"50%\"]\n{rollout}\n"),
        );
        let set = format!("message={message}");
        let (events, ended) = run(
            fleet.command(&[&["--set", &set], flags].concat()),
            |event| {
                if event["event"] == "rolled_back" || event["event"] == "rollback_began" {
                    fleet.signal(victim, Signal::SIGCONT);
                }
            },
        );
        let result = events.last().unwrap();
        let mut last: Vec<&str> = result["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["outcome"].as_str().unwrap())
            .collect();
        last.sort_unstable();
        assert_eq!(
            (ended, last),
            (code, states.to_vec()),
            "{message}: {result:#}"
        );
        for i in result["instances"].as_array().unwrap() {
            let at = server(&fleet, i32::try_from(i["pid"].as_i64().unwrap()).unwrap());
            if i["outcome"] == "confirmed" {
                now[at] = message.into();
            }
        }
        let mut bodies = fleet.bodies();
        // Its two signals may be one or two attempts. The second may come when the file of the
        // others is installed again.
        bodies[victim].clone_from(&now[victim]);
        assert_eq!(bodies, now, "{message}");
        // All run the content on the disk before the next case.
        fleet.write("fleet.toml", &base.replace(&validate, ""));
        fleet.broadcast(&["--set", "message=all"]).expect(0);
        now = vec!["all".into(); 4];
    }
}

#[test]
fn a_dry_run_shows_the_waves_and_what_is_between_them() {
    let fleet = Fleet::start(4);
    add_keys(
        &fleet,
        "[group.rollout]\nbake = \"1500ms\"\ngate = [\"/bin/false\", \"x\"]\n",
    );
    let args = ["--dry-run", "--waves", "1,50%", "--set", "message=x"];
    let output = fleet.command(&args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let between = "is installed with wave 1 and read in waves 2, 3 too: an instance of these that starts again before its wave starts on the new config";
    assert!(text.contains(between), "{text}");
    let waves: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("wave "))
        .map(|line| line.split(" http").next().unwrap())
        .collect();
    let mut pids: Vec<i32> = (0..4).map(|at| fleet.pid(at)).collect();
    pids.sort_unstable();
    let [a, b, c, d] = <[i32; 4]>::try_from(pids)
        .unwrap()
        .map(|pid| format!("  web pid {pid}"));
    let after = ", then 1.5s of bake, then the gate `/bin/false x`";
    let [one, two, three] = [
        ("1/3", "1 instance"),
        ("2/3", "1 instance"),
        ("3/3", "2 instances"),
    ]
    .map(|(wave, n)| format!("wave {wave}: {n}{after}"));
    assert_eq!(waves, [&one, &a, &two, &b, &three, &c, &d]);
    let result = fleet.broadcast(&args).expect(0).json;
    let wave = |wave: u64, instances: u64| serde_json::json!({"wave": wave, "instances": instances, "bake_seconds": 1.5, "gates": [["/bin/false", "x"]]});
    assert_eq!(
        result["waves"],
        serde_json::json!([wave(1, 1), wave(2, 1), wave(3, 2)])
    );
    assert_eq!(
        (fleet.attempts(), fleet.bodies()),
        (vec![1; 4], vec!["one".into(); 4])
    );
}

/// Two groups that read one file, the second after the first. The server of the second is killed
/// after the install for the first wave, and another one is started. Returns the final report and
/// the exit code.
fn restarted(more: &str) -> (Fleet, Value, i32) {
    let mut fleet = Fleet::start(1);
    std::os::unix::fs::symlink(fleet.path("web.toml"), fleet.path("link.toml")).unwrap();
    fleet.serve_from("link.toml");
    let named = fleet.path("b.pid");
    std::fs::write(&named, fleet.pid(1).to_string()).unwrap();
    let (first, more) = (
        stops(&fleet, fleet.pid(0)),
        more.replace("{named}", named.to_str().unwrap()),
    );
    // The timeout is long, so that no instance of the first group fails because the test is slow.
    let patient = group(&fleet, "a", "web.toml", &first).replace("3s", "60s");
    let groups = patient + &group(&fleet, "b", "link.toml", &format!("after = \"a\"\n{more}"));
    fleet.write("fleet.toml", &format!("version = 1\n{groups}"));
    let mut acted = false;
    let (events, code) = run(fleet.command(&["--all", "--set", "message=x"]), |event| {
        if event["event"] == "installed" && !acted {
            acted = true;
            has_its_signal(fleet.pid(0));
            fleet.kill(1);
            fleet.serve_from("link.toml");
            std::fs::write(&named, fleet.pid(2).to_string()).unwrap();
            assert_eq!(get(fleet.url(2), "/").1, "x", "it starts on the new config");
            fleet.signal(0, Signal::SIGCONT);
        }
    });
    (fleet, events.last().unwrap().clone(), code)
}

pub(crate) fn instance(result: &Value, pid: i32) -> &Value {
    result["instances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["pid"] == pid)
        .unwrap_or_else(|| panic!("pid {pid} is not in {result:#}"))
}

#[test]
fn an_instance_that_restarts_before_its_wave_is_proven_without_a_signal() {
    let (fleet, result, code) = restarted("pid_file = \"{named}\"");
    assert_eq!(code, 0, "{result:#}");
    let new = instance(&result, fleet.pid(2));
    assert_eq!(
        (&new["outcome"], &new["wave"], &new["successor_of"]),
        (&"confirmed".into(), &2.into(), &fleet.pid(1).into()),
        "{result:#}"
    );
    assert_eq!(
        reported_config(&fleet, 2)["last_attempt"]["seq"],
        1,
        "it has read its config once, at its start"
    );
}

#[test]
fn an_instance_without_a_declared_successor_is_dead_and_the_newcomer_is_named() {
    let (fleet, result, code) = restarted("");
    assert_eq!(code, 7, "{result:#}");
    assert_eq!(
        instance(&result, fleet.pid(1))["outcome"],
        "died",
        "{result:#}"
    );
    // The file was rolled back. The process runs the content that is gone.
    assert_eq!(
        (
            &instance(&result, fleet.pid(0))["outcome"],
            &instance(&result, fleet.pid(2))["outcome"]
        ),
        (&"reverted".into(), &"revert_failed".into()),
        "{result:#}"
    );
    assert_eq!(
        (
            get(fleet.url(0), "/").1.as_str(),
            get(fleet.url(2), "/").1.as_str()
        ),
        ("one", "x")
    );
}
