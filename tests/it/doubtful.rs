//! Doubtful config paths on a command line, and validators with doubtful files.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::support::{CommandResult, Fleet, until};

/// Reports its config in the file of `RUNS`, and handles the signal. May hold a file open for
/// writing. With `-t`, rejects a list with a bad line.
const DAEMON: &str = r#"
import os, signal, sys, time
def listed(path):
    for line in open(path):
        if ":" not in line: print("bad line: " + line); sys.exit(1)
if sys.argv[1:2] == ["-t"]:
    listed(sys.argv[2]); sys.exit(0)
signal.signal(signal.SIGHUP, lambda *_: None)
held = open(os.environ["HELD"], "r+") if "HELD" in os.environ else None
if "GOES" in os.environ: os.chdir(os.environ["GOES"])
open(os.environ["RUNS"], "w").write("runs")
while True: time.sleep(1)
"#;

/// A daemon in Python. Killed by its pid when dropped.
struct Daemon {
    fleet: Fleet,
    child: Child,
}

impl Daemon {
    /// Starts the daemon in its folder. `more` holds further options.
    fn start(args: &[&str], more: impl FnOnce(&mut Command, &Fleet)) -> Self {
        let fleet = Fleet::start(0);
        ["mine", "default", "users"]
            .iter()
            .for_each(|name| drop(fleet.write(name, "a:b\n")));
        let script = fleet.write("d.py", DAEMON);
        let mut command = Command::new("python3");
        command
            .arg(script)
            .env("RUNS", fleet.path("runs"))
            .args(args)
            .current_dir(fleet.dir.path())
            .env("PWD", fleet.dir.path());
        more(&mut command, &fleet);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let daemon = Self { fleet, child };
        until("it runs", || daemon.fleet.path("runs").exists());
        daemon
    }

    fn change(&self, config: &str, more: &str) -> CommandResult {
        let script = self.fleet.path("d.py");
        let group = format!(
            "version = 1\n[[group]]\nname = \"d\"\nmatch = {{ script = \"{}\" }}\nreloads = true\nconfirm = []\ntimeout = \"300ms\"\n",
            script.display()
        );
        self.fleet
            .write("fleet.toml", &format!("{group}config = {config}\n{more}\n"));
        let new = self.fleet.write("new", "c:d\n");
        self.fleet.broadcast(&["--config", new.to_str().unwrap()])
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.fleet.path(name)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.fleet.path(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn no_default_is_replaced_where_an_argument_may_name_the_config() {
    for args in [
        &["-config", "mine"][..],
        &["-config=mine"],
        &["--c", "mine"],
        &["--conf=mine"],
        &["-dcmine"],
        &["-cmine"],
        // The program may have other names for the option.
        &["--settings", "mine"],
        &["--settings=mine"],
        &["-s", "mine"],
        &["mine"],
    ] {
        let daemon = Daemon::start(args, |_, _| {});
        let default = daemon.path("default");
        let result = daemon
            .change(
                &format!(
                    "[\"{{arg:--config}}\", \"{{arg:-c}}\", \"{}\"]",
                    default.display()
                ),
                "",
            )
            .expect(5);
        assert!(
            result.stderr.contains("write `config = "),
            "{args:?}: {}",
            result.stderr
        );
        assert!(
            result.stderr.contains("getopt"),
            "{args:?}: {}",
            result.stderr
        );
        assert_eq!(
            (
                daemon.text("default").as_str(),
                daemon.text("mine").as_str()
            ),
            ("a:b\n", "a:b\n"),
            "{args:?}"
        );
    }
    // An argument that names something else leaves the default.
    for args in [&["--pid-file", "mine"][..], &["-x", "none"], &[]] {
        let daemon = Daemon::start(args, |_, _| {});
        let default = daemon.path("default");
        daemon
            .change(
                &format!("[\"{{arg:--config}}\", \"{}\"]", default.display()),
                "",
            )
            .expect(12);
        assert_eq!(
            (
                daemon.text("default").as_str(),
                daemon.text("mine").as_str()
            ),
            ("c:d\n", "a:b\n"),
            "{args:?}"
        );
    }
}

#[test]
fn a_daemon_in_the_root_directory_may_have_started_elsewhere() {
    let below = |fleet: &Fleet| {
        fleet
            .path("mine")
            .display()
            .to_string()
            .trim_start_matches('/')
            .to_owned()
    };
    let daemon = Daemon::start(&[], |command, fleet| {
        // The same path below its folder is another file.
        let deep = fleet.path(&below(fleet));
        std::fs::create_dir_all(deep.parent().unwrap()).unwrap();
        std::fs::write(&deep, "its own\n").unwrap();
        command
            .args(["-c", &below(fleet)])
            .env("PWD", "/")
            .env("GOES", "/");
    });
    let result = daemon.change("\"{arg:-c}\"", "").expect(5);
    assert!(result.stderr.contains("relative"), "{}", result.stderr);
    assert!(
        result.stderr.contains("write `config = "),
        "{}",
        result.stderr
    );
    assert_eq!(daemon.text("mine"), "a:b\n");
}

#[test]
fn a_variable_of_its_environment_may_name_the_config() {
    let config = "[\"{arg:-c}\", \"{env:SETTINGS}/mine\"]";
    let daemon = Daemon::start(&[], |command, fleet| {
        _ = command.env("SETTINGS", fleet.dir.path())
    });
    daemon.change(config, "").expect(12);
    assert_eq!(daemon.text("mine"), "c:d\n");
    let daemon = Daemon::start(&[], |command, _| _ = command.env("SETTINGS", ""));
    let result = daemon.change(config, "").expect(5);
    assert!(
        result.stderr.contains("no SETTINGS in its environment"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("write `config = "),
        "{}",
        result.stderr
    );
    assert_eq!(daemon.text("mine"), "a:b\n");
}

#[test]
fn a_file_that_the_instance_holds_open_is_unchanged_for_the_validator() {
    let daemon = Daemon::start(&["-c", "mine"], |command, fleet| {
        _ = command.env("HELD", fleet.path("users"))
    });
    let list = daemon.path("users");
    let validator = format!(
        "getopt = \"c:\"\nvalidate = [\"python3\", \"{}\", \"-t\", \"{}\"]",
        daemon.path("d.py").display(),
        list.display()
    );
    daemon.fleet.write("users", "a:b\nbroken\n");
    let result = daemon.change("\"{arg:-c}\"", &validator);
    assert!(
        [4, 5].contains(&result.code) || result.stderr.contains("Unvalidated"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("bad line: broken"),
        "{}",
        result.stderr
    );
    daemon.fleet.write("users", "a:b\n");
    let result = daemon.change("\"{arg:-c}\"", &validator).expect(12);
    assert!(result.stderr.contains("Valid"), "{}", result.stderr);
}

/// Returns `command` as root without the right to mount, if the machine allows such a root
/// namespaces.
fn without_mounts(command: &Command) -> Option<Command> {
    let drop = [
        "--bounding-set",
        "-sys_admin",
        "--inh-caps",
        "-sys_admin",
        "--",
    ];
    let can = |program: &str, args: &[&str]| {
        Command::new(program)
            .args(args)
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let namespace = [&drop[..], &["unshare", "--user", "--mount", "true"]].concat();
    if !nix::unistd::geteuid().is_root() || !can("setpriv", &namespace) {
        crate::support::skipped("root without the right to mount may have no user namespace here");
        return None;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(drop)
        .arg(command.get_program())
        .args(command.get_args());
    Some(wrapped)
}

#[test]
fn root_without_the_right_to_mount_judges_and_changes_nothing() {
    let fleet = Fleet::start(1);
    let (live, given, beside) = (
        fleet.path("web.toml"),
        fleet.write("given", "as it was\n"),
        fleet.path("beside"),
    );
    // The validator gives a file to another user, and writes beside the config and into the root
    // directory.
    let script = format!(
        "chown 33:33 '{0}' || exit 2; [ \"$(stat -c %u '{0}')\" = 33 ] || exit 3; echo x >'{1}'; echo x >/beside-{2} || exit 4; ! grep -q bad '{3}'\n",
        given.display(),
        beside.display(),
        std::process::id(),
        live.display()
    );
    let script = fleet.write("validator", &script);
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{group}validate = [\"/bin/sh\", \"{}\"]\n",
            script.display()
        ),
    );
    let change = |message: &str| {
        let set = format!("message={message}");
        Some(CommandResult::of(&mut without_mounts(&fleet.command(&[
            "-o",
            "json",
            "--validate=strict",
            "--set",
            &set,
        ]))?))
    };
    let Some(result) = change("bad") else { return };
    let result = result.expect(4);
    assert!(
        result.stderr.contains("refused it (exit status: 1)"),
        "{}",
        result.stderr
    );
    assert_eq!(fleet.bodies(), ["one"]);
    let result = change("good").unwrap().expect(0);
    assert!(result.stderr.contains("Valid"), "{}", result.stderr);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        (std::fs::metadata(given).unwrap().uid(), beside.exists()),
        (0, false)
    );
    assert!(!PathBuf::from(format!("/beside-{}", std::process::id())).exists());
}
