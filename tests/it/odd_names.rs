//! Paths, arguments and variables that are not UTF-8. Nothing panics, and their bytes are kept
//! exactly.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::support::{CommandEnd, CommandResult, Fleet, get, run_to_end, until};

/// A server whose executable, config and working directory have names that are not UTF-8.
struct Odd {
    fleet: Fleet,
    exe: PathBuf,
    config: PathBuf,
    server: Child,
    url: String,
}

fn odd(name: &str) -> OsString {
    [OsStr::new(name), OsStr::from_bytes(b"\xff\xfe\n")].concat_os()
}

trait Concat {
    fn concat_os(&self) -> OsString;
}

impl<const N: usize> Concat for [&OsStr; N] {
    fn concat_os(&self) -> OsString {
        self.iter().fold(OsString::new(), |mut all, part| {
            all.push(part);
            all
        })
    }
}

const NEW: &str = "message = \"two\"\nlisten = \"127.0.0.1:0\"\n";

impl Odd {
    /// Starts a server in a folder with an odd name. `by` is its config argument.
    fn start(by: impl Fn(&Fleet, &Path) -> OsString) -> Self {
        let fleet = Fleet::start(0);
        let dir = fleet.path("odd").with_file_name(odd("dir"));
        std::fs::create_dir(&dir).unwrap();
        let name = fleet
            .exe()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let exe = dir.join(odd(&name));
        assert!(
            Command::new("cp")
                .arg(fleet.exe())
                .arg(&exe)
                .status()
                .unwrap()
                .success()
        );
        let config = dir.join(odd("web.toml"));
        std::fs::copy(fleet.path("web.toml"), &config).unwrap();
        let by = by(&fleet, &config);
        let mut server = Command::new(&exe)
            .args(["serve", "--config"])
            .arg(by)
            .current_dir(&dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = server.stdout.take().unwrap();
        let mut odd = Self {
            exe,
            config,
            server,
            url: String::new(),
            fleet,
        };
        BufReader::new(stdout).read_line(&mut odd.url).unwrap();
        odd.url = odd.url.trim().to_owned();
        let group = "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"10s\"\n";
        odd.fleet.write(
            "fleet.toml",
            &format!("{group}match = {{ exe = \"{name}*\", args = [\"serve\"] }}\n"),
        );
        odd
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.config).unwrap()
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Returns the bytes that JSON holds for a path.
fn path_of(value: &Value) -> Vec<u8> {
    match (value.as_str(), value["bytes"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(hex)) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect(),
        _ => panic!("{value} is no path"),
    }
}

/// Installs a new config, reads it with every command, and reverts by the journal.
fn there_and_back(odd: &Odd) {
    let fleet = &odd.fleet;
    let old = odd.text();
    let new = fleet.write("new.toml", NEW);
    let all = [fleet.doctor(&[]).expect(0), fleet.status().expect(0)];
    assert_eq!(
        path_of(&all[0].json["processes"][0]["exe"]),
        odd.exe.as_os_str().as_bytes()
    );
    assert_eq!(
        path_of(&all[1].json["instances"][0]["path"]),
        odd.config.as_os_str().as_bytes()
    );
    let result = fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    assert_eq!(
        (odd.text(), get(&odd.url, "/").1),
        (NEW.into(), "two".into())
    );
    assert_eq!(
        path_of(&result.json["targets"][0]["path"]),
        odd.config.as_os_str().as_bytes()
    );
    assert_eq!(
        path_of(&result.json["instances"][0]["exe"]),
        odd.exe.as_os_str().as_bytes()
    );
    let told: Value = serde_json::from_str(&get(&odd.url, "/-/config").1).unwrap();
    assert_eq!(
        path_of(&told["instance"]["exe"]),
        odd.exe.as_os_str().as_bytes()
    );
    let run = result.json["run"].as_str().unwrap();
    fleet.continue_run("revert", &[run]).expect(0);
    assert_eq!((odd.text(), get(&odd.url, "/").1), (old, "one".into()));
    let history = |args: &[&str]| {
        run_to_end(
            Command::new(&odd.exe)
                .arg("history")
                .args(args)
                .arg("--state")
                .arg(fleet.path("state")),
        )
    };
    assert_eq!(
        (
            history(&[run]).code,
            history(&[]).code,
            history(&["-o", "json", run]).code
        ),
        (Some(0), Some(0), Some(0))
    );
}

#[test]
fn a_config_of_any_name_is_replaced_and_reverted() {
    there_and_back(&Odd::start(|_, config| config.as_os_str().to_owned()));
    // Relative to a working directory of any name.
    there_and_back(&Odd::start(|_, config| {
        config.file_name().unwrap().to_owned()
    }));
    // Behind a link.
    there_and_back(&Odd::start(|fleet, config| {
        let link = fleet.path("link.toml");
        symlink(config, &link).unwrap();
        link.into()
    }));
}

#[test]
fn a_file_name_that_looks_alike_is_another_file() {
    let odd = Odd::start(|_, config| config.as_os_str().to_owned());
    // The text that a reader with lossy UTF-8 conversion would see.
    let alike = PathBuf::from(odd.config.to_string_lossy().into_owned());
    std::fs::create_dir_all(alike.parent().unwrap()).unwrap();
    std::fs::write(&alike, odd.text()).unwrap();
    let new = odd.fleet.write("new.toml", NEW);
    odd.fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    assert_eq!(
        (odd.text(), std::fs::read_to_string(&alike).unwrap() == NEW),
        (NEW.into(), false)
    );
}

#[test]
fn an_odd_process_does_not_abort_the_run_of_another() {
    let odd = Odd::start(|_, config| config.as_os_str().to_owned());
    let mut fleet = Fleet::start(1);
    fleet.serve();
    // It matches the executable, and its arguments exclude it.
    let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
    assert_eq!(result.states(), ["confirmed"; 2]);
    let result = CommandResult::of(Command::new(fleet.exe()).args([
        "doctor",
        "-o",
        "json",
        &odd.server.id().to_string(),
    ]));
    assert_eq!(
        path_of(&result.json["processes"][0]["exe"]),
        odd.exe.as_os_str().as_bytes()
    );
}

#[test]
fn a_killed_run_over_an_oddly_named_target_is_resumed() {
    let odd = Odd::start(|_, config| config.as_os_str().to_owned());
    let fleet = &odd.fleet;
    let new = fleet.write("new.toml", NEW);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{text}[group.rollout]\ngate = [\"sleep\", \"50\"]\n"),
    );
    let mut run = fleet
        .command(&["-q", "--config", new.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it is installed", || {
        odd.text() == NEW && get(&odd.url, "/").1 == "two"
    });
    run.kill().unwrap();
    run.wait().unwrap();
    let result = fleet.continue_run("revert", &[]).expect(0);
    assert_eq!(
        (odd.text().contains("one"), get(&odd.url, "/").1),
        (true, "one".into()),
        "{:#}",
        result.json
    );
}

/// Whether the command exited by itself, with its own code and without a panic.
fn is_well(what: &str, CommandEnd { code, stderr, .. }: CommandEnd) {
    assert!(
        code.is_some_and(|code| code != 101),
        "{what}: {code:?} {stderr}"
    );
    assert!(!stderr.contains("panicked"), "{what}: {code:?} {stderr}");
}

#[test]
fn no_argument_makes_a_command_panic() {
    let fleet = Fleet::start(1);
    let odd = odd("x");
    let commands = [
        "serve",
        "check",
        "broadcast",
        "resume",
        "revert",
        "kinds",
        "status",
        "doctor",
        "history",
        "forget",
    ];
    for command in commands {
        let bare = || {
            let mut bare = Command::new(fleet.exe());
            bare.arg(command).current_dir(fleet.dir.path());
            bare
        };
        is_well(command, run_to_end(bare().arg(&odd)));
        for option in [
            "--fleet",
            "--state",
            "--config",
            "--set",
            "--reason",
            "--timeout",
            "--waves",
            "--listen",
            "-o",
            "--keep",
            "--junit",
        ] {
            is_well(
                &format!("{command} {option}"),
                run_to_end(bare().arg(option).arg(&odd)),
            );
        }
        for name in [
            "HELLO_STATE",
            "HELLO_FLEET",
            "XDG_STATE_HOME",
            "HOME",
            "PATH",
            "SUDO_USER",
            "CI_JOB_URL",
            "TZ",
            "NO_COLOR",
            "TERM",
            "COLUMNS",
        ] {
            is_well(
                &format!("{command} with {name}"),
                run_to_end(
                    bare()
                        .args(if command == "serve" {
                            &["--help"][..]
                        } else {
                            &[]
                        })
                        .env(name, &odd),
                ),
            );
        }
    }
    // The run records its command line and its operator.
    let state = fleet.path("state").with_file_name(&odd);
    // `--junit` has made a file of that name.
    let _ = std::fs::remove_file(&state);
    let mut run = Command::new(fleet.exe());
    run.args(["broadcast", "--set", "message=two", "-o", "json", "--fleet"])
        .arg(fleet.path("fleet.toml"));
    run.env("SUDO_USER", &odd)
        .env("CI_JOB_URL", &odd)
        .env("HOME", &odd)
        .arg("--state")
        .arg(&state);
    let run = run_to_end(&mut run);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn no_number_or_duration_makes_a_command_panic() {
    let fleet = Fleet::start(1);
    let values = [
        "99999999999999999999",
        "-1",
        "0",
        "18446744073709551615",
        "99999999999999d",
        "9223372036854775807s",
        "1h",
        "0s",
        "-5s",
        "1e400",
        "100%",
        "101%",
        "99999999999%",
        "..",
        "5..3",
        "",
        ",",
        "\u{e4}%",
        "4294967296",
        "P1Y",
    ];
    for value in values {
        for option in [
            "--timeout",
            "--lock-timeout",
            "--waves",
            "--max-failures",
            "--count",
            "--keep",
        ] {
            is_well(
                &format!("{option}={value}"),
                run_to_end(&mut fleet.command(&["--dry-run", &format!("{option}={value}")])),
            );
        }
        is_well(
            value,
            run_to_end(fleet.read_only("doctor").arg("--").arg(value)),
        );
        is_well(
            value,
            run_to_end(
                Command::new(fleet.exe())
                    .args(["history", &format!("--last={value}"), "--state"])
                    .arg(fleet.path("state")),
            ),
        );
        for key in [
            "timeout",
            "count",
            "samples",
            "rollout.bake",
            "rollout.max_unresponsive",
            "rollout.waves",
            "listen",
            "pid_file",
        ] {
            for text in [format!("{value:?}"), value.to_owned()] {
                let group = "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\n";
                let path = fleet.write("odd.toml", &format!("{group}{key} = {text}\n"));
                is_well(
                    &format!("{key} = {text}"),
                    run_to_end(
                        Command::new(fleet.exe())
                            .args(["status", "--fleet"])
                            .arg(path),
                    ),
                );
            }
        }
    }
}
