//! As root, a run sees whether a process opens its config after the signal.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    claims::server::each,
    support::{CommandResult, Fleet, Killed},
};

/// Reads a file at each signal, by itself or by a child, and then counts the signal.
const PROGRAM: &str = "import os, signal, subprocess, sys, time
_, count, how, *read = sys.argv
# Whose child it is can be told as long as it is there.
READ = 'import sys, time; open(sys.argv[1]).read(); time.sleep(0.3)'
def hang_up(*_):
    for path in read:
        if how == 'itself': os.close(os.open(path, os.O_RDONLY))
        if how == 'child': subprocess.run(['python3', '-c', READ, path])
        if how == 'gone': subprocess.run(['cat', path], stdout=subprocess.DEVNULL)
        if how == 'orphan':
            subprocess.run(['sh', '-c', 'python3 -c \"$0\" \"$1\" &', READ, path])
            time.sleep(0.2)
        if how == 'grandchild': subprocess.run(['sh', '-c', 'python3 -c \"$0\" \"$1\"; true', READ, path])
    seen = int(open(count).read())
    open(count, 'w').write(str(seen + 1))
signal.signal(signal.SIGHUP, hang_up)
print('ready', flush=True)
while True: time.sleep(60)
";

/// A folder with the files `a`, `dir/b` and another one, and a program that reads some of them.
struct House {
    fleet: Fleet,
    _program: Killed,
}

impl House {
    /// Returns `None` if this user cannot see which process opens a file.
    fn of(how: &str, reads: &[&str]) -> Option<Self> {
        if !crate::support::runs_as_root("only root sees which process opens a file") {
            return None;
        }
        let fleet = Fleet::start(0);
        std::fs::create_dir_all(fleet.path("dir/deep")).unwrap();
        for name in ["a", "other", "dir/b", "dir/deep/c"] {
            fleet.write(name, "one\n");
        }
        fleet.write("count", "1");
        let mut command = Command::new("python3");
        command
            .arg(fleet.write("program.py", PROGRAM))
            .arg(fleet.path("count"))
            .arg(how)
            .args(reads.iter().map(|name| fleet.path(name)));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let program = Killed(child);
        assert!(
            BufReader::new(stdout)
                .lines()
                .any(|line| line.unwrap() == "ready")
        );
        Some(Self {
            fleet,
            _program: program,
        })
    }

    fn group(&self, config: &str, keys: &str) {
        let (script, count) = (self.fleet.path("program.py"), self.fleet.path("count"));
        let config = config.replace("DIR", self.fleet.dir.path().to_str().unwrap());
        let text = format!(
            "version = 1\n[[group]]\nname = \"app\"\nmatch = {{ script = \"{}\" }}\ngetopt = \"\"\nreloads = true\nconfig = {config}\n{keys}\n\
             [[group.confirm]]\nexec = [\"cat\", \"{}\"]\nincreased = true\n",
            script.display(),
            count.display()
        );
        self.fleet.write("fleet.toml", &text);
    }

    /// An unproven instance is watched until the timeout.
    fn broadcast(&self, new: &str) -> CommandResult {
        let new = self.fleet.path(new);
        self.fleet
            .broadcast(&["--config", new.to_str().unwrap(), "--timeout", "10s"])
    }

    fn opened(config: &str, how: &str, reads: &[&str]) -> Option<(i32, String, Value, String)> {
        let house = Self::of(how, reads)?;
        house.group(config, "");
        house.fleet.write("new", "two\n");
        let result = house.broadcast("new");
        let one = &result.json["instances"][0];
        let state = one["outcome"]
            .as_str()
            .unwrap_or_else(|| panic!("{}\n{:#}", result.stderr, result.json))
            .to_owned();
        Some((result.code, state, one["opened"].clone(), result.stderr))
    }
}

const NAMED: &str = "\"DIR/a\"";
const SEVERAL: &str = "[\"DIR/a\", \"DIR/b\"]";
const DEFAULT: &str = "[\"{arg:-c}\", \"DIR/a\"]";

#[test]
fn an_instance_is_confirmed_if_it_or_a_child_opens_the_config() {
    let cases = [
        ("itself", NAMED),
        ("itself", DEFAULT),
        ("child", DEFAULT),
        ("grandchild", DEFAULT),
        ("grandchild", NAMED),
    ];
    each(&cases, |(how, config)| {
        let Some((code, state, opened, stderr)) = House::opened(config, how, &["a"]) else {
            return;
        };
        assert_eq!(
            (code, state.as_str(), opened),
            (0, "confirmed", true.into()),
            "{how} {config}: {stderr}"
        );
        assert!(!stderr.contains("Not opened"), "{stderr}");
    });
}

#[test]
fn opening_another_file_is_reported_and_unproven_without_a_named_config() {
    let cases = [
        (NAMED, &[][..]),
        (NAMED, &["dir/b", "other"]),
        (DEFAULT, &[]),
        (DEFAULT, &["other"]),
        (SEVERAL, &["other"]),
    ];
    each(&cases, |(config, reads)| {
        let (code, state) = if *config == NAMED {
            (0, "confirmed")
        } else {
            (12, "unconfirmed")
        };
        let Some((exit, is, opened, stderr)) = House::opened(config, "itself", reads) else {
            return;
        };
        assert_eq!(
            (exit, is.as_str(), opened),
            (code, state, false.into()),
            "{config} {reads:?}: {stderr}"
        );
        assert!(stderr.contains("Not opened"), "{stderr}");
        assert!(stderr.contains("/a after its signal"), "{stderr}");
        assert_eq!(
            code == 12,
            stderr.contains("does not say for certain that it reads that"),
            "{stderr}"
        );
    });
}

#[test]
fn a_helper_of_unknown_origin_is_not_attributed_to_another_process() {
    each(&["gone", "orphan"], |how| {
        let Some((code, state, opened, stderr)) = House::opened(DEFAULT, how, &["a"]) else {
            return;
        };
        assert_eq!((code, state.as_str()), (0, "confirmed"), "{how}: {stderr}");
        assert!(opened == true || opened.is_null(), "{how}: {opened}");
    });
}

#[test]
fn files_opened_by_the_run_or_another_program_count_for_no_instance() {
    let Some(house) = House::of("itself", &["other"]) else {
        return;
    };
    let seen = house.fleet.path("a");
    house.group(
        DEFAULT,
        &format!(
            "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"cat '{}'; sleep 0.2\"]\nchanged = true",
            seen.display()
        ),
    );
    house.fleet.write("new", "two\n");
    let reader = format!("while sleep 0.05; do exec 3<'{}'; done", seen.display());
    let _reader = Killed(Command::new("sh").args(["-c", &reader]).spawn().unwrap());
    let result = house.broadcast("new");
    // One of them may have ended before it is inspected.
    let ends = [(12, Value::Bool(false)), (0, Value::Null)];
    assert!(
        ends.contains(&(result.code, result.json["instances"][0]["opened"].clone())),
        "{:#}",
        result.json
    );
}

#[test]
fn a_rollback_is_unproven_if_the_default_config_was_not_opened() {
    let Some(house) = House::of("itself", &["other"]) else {
        return;
    };
    let no = house.fleet.write("no", "#!/bin/sh\nexit 1\n");
    std::fs::set_permissions(&no, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    house.group(
        DEFAULT,
        &format!("[group.rollout]\ngate = [\"{}\"]", no.display()),
    );
    house.fleet.write("new", "two\n");
    let result = house.broadcast("new").expect(7);
    assert_eq!(
        (result.states(), &result.json["instances"][0]["opened"]),
        (vec!["revert_failed"], &Value::Bool(false)),
        "{:#}",
        result.json
    );
}

#[test]
fn opening_a_new_file_of_a_directory_counts_for_the_directory() {
    for (reads, opened) in [
        (&["dir/deep/c"][..], true),
        (&["dir/b"], false),
        (&["dir", "a"], false),
    ] {
        let Some(house) = House::of("itself", reads) else {
            return;
        };
        house.group("\"DIR/dir\"", "");
        std::fs::create_dir_all(house.fleet.path("new/deep")).unwrap();
        [("new/b", "one\n"), ("new/deep/c", "two\n")]
            .iter()
            .for_each(|(name, text)| drop(house.fleet.write(name, text)));
        let result = house.broadcast("new").expect(0);
        assert_eq!(
            result.json["instances"][0]["opened"], opened,
            "{reads:?} {:#}",
            result.json
        );
    }
}

#[test]
fn each_of_several_targets_must_be_opened() {
    for (reads, opened) in [
        (&["a", "other"][..], true),
        (&["a"], false),
        (&["other"], false),
    ] {
        let Some(house) = House::of("itself", reads) else {
            return;
        };
        house.group("[[\"DIR/a\"], [\"DIR/other\"]]", "");
        let result = house.fleet.broadcast(&["--timeout", "30s"]).expect(0);
        assert_eq!(
            result.json["instances"][0]["opened"], opened,
            "{reads:?} {:#}",
            result.json
        );
    }
}

#[test]
fn without_the_capability_a_run_does_not_report_file_opens() {
    let Some(house) = House::of("itself", &["other"]) else {
        return;
    };
    house.group(DEFAULT, "");
    house.fleet.write("new", "two\n");
    let new = house.fleet.path("new");
    let run = house
        .fleet
        .command(&["-o", "json", "--config", new.to_str().unwrap()]);
    // Runs as root without the capability that the kernel requires.
    let mut without = Command::new("setpriv");
    without
        .args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"])
        .arg(run.get_program())
        .args(run.get_args());
    without
        .envs(
            run.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(run.get_current_dir().unwrap_or(Path::new("/")));
    let result = CommandResult::of(&mut without).expect(0);
    assert_eq!(
        (result.states(), &result.json["instances"][0]["opened"]),
        (vec!["confirmed"], &Value::Null),
        "{:#}",
        result.json
    );
    assert!(!result.stderr.contains("Not opened"), "{}", result.stderr);
}

#[test]
fn doctor_reports_whether_a_run_would_see_file_opens() {
    for (config, text) in [
        (NAMED, "a run sees whether it opens"),
        (DEFAULT, "is only its default"),
    ] {
        let Some(house) = House::of("itself", &["a"]) else {
            return;
        };
        house.group(config, "");
        let result = house.fleet.doctor(&[]);
        let checks = result.json["processes"][0]["checks"].as_array().unwrap();
        let check = checks
            .iter()
            .find(|check| check["check"] == "opened")
            .unwrap_or_else(|| panic!("{:#}", result.json));
        assert!(check["text"].as_str().unwrap().contains(text), "{check}");
    }
}
