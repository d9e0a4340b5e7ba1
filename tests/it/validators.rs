//! Validation of a candidate: in place, by the instance's own executable, as its user and in its
//! environment.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, chown},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::support::{CommandResult, Fleet, until};

const OTHER_UID: u32 = 65534;

/// Writes `fleet.toml` with `more` in its group.
fn group(fleet: &Fleet, more: &str) {
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    let group = format!(
        "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"3s\"\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n"
    );
    fleet.write("fleet.toml", &format!("{group}{more}\n"));
}

/// Does the same with a shell script as validator, followed by `args`.
fn validator(fleet: &Fleet, script: &str, args: &str) {
    let path = fleet.write("validator", script);
    group(
        fleet,
        &format!("validate = [\"/bin/sh\", \"{}\"{args}]", path.display()),
    );
}

/// Returns the output of a validator that rejected the candidate.
fn words(result: &CommandResult) -> &str {
    result
        .stderr
        .split("refused it (exit status: 1): ")
        .nth(1)
        .unwrap_or_else(|| panic!("{}", result.stderr))
        .split("\n\nhint")
        .next()
        .unwrap()
}

fn is_root() -> bool {
    crate::support::runs_as_root("only root can run what other users run")
}

/// The end of a script that rejects all but the running config, which contains `running`.
fn no(fleet: &Fleet, running: &str) -> String {
    format!(
        "\ngrep -q '\"{running}\"' '{}' && exit 0; exit 1",
        fleet.path("web.toml").display()
    )
}

#[test]
fn the_candidate_has_its_real_name_at_its_real_path() {
    let fleet = Fleet::start(1);
    let live = fleet.path("web.toml").display().to_string();
    let no = no(&fleet, "one");
    for args in [
        "\"{args}\"",
        "\"serve\", \"{opt:--config}\"",
        "\"serve\", \"--config\", \"{candidate}\"",
        "\"{config}\", \"x\", \"{candidate}\"",
    ] {
        validator(
            &fleet,
            &format!("echo \"$@\" \"$#\"; cat \"$3\"; ls -A \"$(dirname \"$3\")\"; {no}"),
            &format!(", {args}"),
        );
        let result = fleet.broadcast(&["--set", "message=two"]).expect(4);
        let words = words(&result);
        let before = if args.contains("{config}") {
            format!("{live} x {live}")
        } else {
            format!("serve --config {live}")
        };
        assert!(words.starts_with(&before), "{args}: {}", result.stderr);
        assert!(words.contains(" 3\n"), "{args}: {}", result.stderr);
        assert!(
            words.contains("message = \"two\""),
            "{args}: {}",
            result.stderr
        );
        assert!(!words.contains(".hello-"), "{args}: {}", result.stderr);
    }
    // An option that was not given adds no argument.
    validator(
        &fleet,
        &format!("echo \"args: $# $*\"; {no}"),
        ", \"{opt:--listen}\", \"{candidate}\", \"{pid}\", \"{listen.host}\", \"{listen.port}\"",
    );
    let result = fleet.broadcast(&["--set", "message=two"]).expect(4);
    let url = fleet
        .url(0)
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    assert!(words(&result).starts_with("args: 4 "), "{}", result.stderr);
    assert!(
        words(&result).ends_with(&format!(" {} 127.0.0.1 {url}", fleet.pid(0))),
        "{}",
        result.stderr
    );
}

#[test]
fn no_other_process_sees_the_candidate_at_the_live_path() {
    let fleet = Fleet::start(1);
    let (there, go, live, before) = (
        fleet.path("there"),
        fleet.path("go"),
        fleet.path("web.toml"),
        fleet.text(),
    );
    let wait = format!(
        "R=/proc/$PPID/root; cat '{0}' >\"$R{1}.new\"; mv \"$R{1}.new\" \"$R{1}\"\nwhile [ ! -e \"$R{2}\" ]; do sleep 0.02; done\n",
        live.display(),
        there.display(),
        go.display()
    );
    validator(&fleet, &wait, "");
    let mut run = fleet
        .command(&["-q", "--validate", "--set", "message=two"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the validator has read the live path", || there.exists());
    assert_eq!(
        std::fs::read_to_string(&there).unwrap(),
        before.replace("one\" # said", "two\" # said")
    );
    assert_eq!(fleet.text(), before, "no other process sees it");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(live.to_str().unwrap()), "{mounts}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(
        (run.wait().unwrap().code(), fleet.bodies()),
        (Some(0), vec!["two".to_owned()])
    );
    // The live file by name, not as an argument of the process: the operator configured it.
    validator(
        &fleet,
        &format!("echo \"$1\"; cat \"$1\"; {}", no(&fleet, "two")),
        ", \"{config}\"",
    );
    let result = fleet.broadcast(&["--set", "message=three"]).expect(4);
    assert!(
        words(&result).starts_with(live.to_str().unwrap()),
        "{}",
        result.stderr
    );
    assert!(words(&result).contains("three"), "{}", result.stderr);
}

#[test]
fn several_files_are_judged_together() {
    let fleet = Fleet::start(1);
    let more = fleet.write("more.toml", "message = \"more\"\n");
    let script = fleet.write(
        "validator",
        &format!(
            "cat '{}' '{}' \"$1\"; {}",
            fleet.path("web.toml").display(),
            more.display(),
            no(&fleet, "one")
        ),
    );
    let config = format!(
        "config = [[\"{{arg:--config}}\"], [\"{}\"]]",
        more.display()
    );
    group(
        &fleet,
        &format!(
            "{config}\nspeaks = \"none\"\nconfirm = []\nvalidate = [\"/bin/sh\", \"{}\", \"{{candidate}}\"]",
            script.display()
        ),
    );
    let new = fleet.path("new");
    std::fs::create_dir(&new).unwrap();
    for name in ["web.toml", "more.toml"] {
        std::fs::write(new.join(name), "message = \"both\"\n").unwrap();
    }
    let result = fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(4);
    assert_eq!(
        words(&result).matches("message = \"both\"").count(),
        3,
        "{}",
        result.stderr
    );
    assert!(
        result
            .stderr
            .contains(&format!("web.toml`, `{}`", more.display())),
        "{}",
        result.stderr
    );
}

/// Returns `hello run-as` in the directory `cwd`.

#[test]
fn an_in_place_validator_of_another_user_keeps_nothing_of_root() {
    if !is_root() {
        return;
    }
    // A server of another user, observed from outside.
    let fleet = Fleet::start(0);
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let _other = Server::start(
        as_other_user(fleet.exe())
            .arg("serve")
            .arg("--config")
            .arg(fleet.path("web.toml")),
    );
    let script = fleet.write(
        "validator",
        &format!(
            "id -u; cat '{}'; {}",
            fleet.path("web.toml").display(),
            no(&fleet, "one")
        ),
    );
    let user = format!(
        "user = \"{OTHER_UID}\"\nconfig_under = \"{}\"",
        fleet.dir.path().display()
    );
    group(
        &fleet,
        &format!("{user}\nvalidate = [\"/bin/sh\", \"{}\"]", script.display()),
    );
    let result = fleet.broadcast(&["--set", "message=two"]).expect(4);
    assert!(
        words(&result).starts_with(&format!("{OTHER_UID}\n")),
        "{}",
        result.stderr
    );
    assert!(
        words(&result).contains("message = \"two\""),
        "{}",
        result.stderr
    );
}

/// A server that is no child of the fleet. Killed by its pid when dropped.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let server = Self(child);
        let (tell, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut url = String::new();
            let _ = BufReader::new(stdout).read_line(&mut url);
            let _ = tell.send(url);
        });
        let url = heard
            .recv_timeout(Duration::from_secs(30))
            .unwrap_or_default();
        assert!(url.starts_with("http://"), "{url:?}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn as_other_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            &OTHER_UID.to_string(),
            "--regid",
            &OTHER_UID.to_string(),
            "--clear-groups",
            "--",
        ])
        .arg(program);
    crate::support::without_cargo(&mut command);
    command
}

#[test]
fn an_ordinary_user_validates_in_a_private_user_namespace() {
    if !is_root() {
        return;
    }
    if !as_other_user("unshare")
        .args(["--user", "--mount", "true"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        crate::support::skipped("an ordinary user may have no user namespace here");
        return;
    }
    let fleet = Fleet::start(0);
    for path in [
        fleet.dir.path().to_owned(),
        fleet.path("web.toml"),
        fleet.path("fleet.toml"),
    ] {
        chown(&path, Some(OTHER_UID), Some(OTHER_UID)).unwrap();
    }
    let _server = Server::start(
        as_other_user(fleet.exe())
            .arg("serve")
            .arg("--config")
            .arg(fleet.path("web.toml")),
    );
    let script = fleet.write(
        "validator",
        &format!(
            "id -u; grep CapEff /proc/self/status; cat '{}'; exec \"$1\" --version",
            fleet.path("web.toml").display()
        ),
    );
    let wrong = fleet.write(
        "wrong",
        &format!("sh '{}' \"$1\"; {}", script.display(), no(&fleet, "one")),
    );
    for (validate, code) in [
        (
            format!("\"/bin/sh\", \"{}\", \"{{exe}}\"", wrong.display()),
            4,
        ),
        ("\"{exe}\", \"check\", \"{config}\"".to_owned(), 0),
        (
            format!("\"/bin/sh\", \"{}\", \"{{exe}}\"", script.display()),
            0,
        ),
    ] {
        group(&fleet, &format!("validate = [{validate}]"));
        let run = fleet.command(&["--validate", "--set", &format!("message={code}")]);
        let output = as_other_user(run.get_program())
            .args(run.get_args())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{validate}: {stderr}");
        if code == 4 {
            let wanted = format!("{OTHER_UID}\nCapEff:\t0000000000000000\n");
            // Lines of another program are marked as such.
            let stderr = stderr.replace("\n  | ", "\n");
            assert!(stderr.contains(&wanted), "{stderr}");
            assert!(stderr.contains("message = \"4\""), "{stderr}");
            assert!(stderr.contains("hello 0."), "{stderr}");
        }
    }
    // The running executable has no path any more. It was opened before the namespace was entered.
    let new = fleet.path("new");
    assert!(
        Command::new("cp")
            .arg(fleet.exe())
            .arg(&new)
            .status()
            .unwrap()
            .success()
    );
    std::fs::rename(&new, fleet.exe()).unwrap();
    group(&fleet, "validate = [\"{exe}\", \"check\", \"{config}\"]");
    let run = fleet.command(&["--validate", "--set", "message=replaced"]);
    let output = as_other_user(run.get_program())
        .args(run.get_args())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(0), "{stderr}");
    assert!(stderr.contains("(deleted) check"), "{stderr}");
}

/// Runs without the right to mount and without user namespaces, as in many containers.
const CONFINED: &str = r#"
set -eu
D=$1; H=$2
echo 0 >/proc/sys/user/max_user_namespaces
drop="setpriv --bounding-set=-all --inh-caps=-all --"
$drop "$H" serve --config "$D/web.toml" >"$D/url" 2>/dev/null & SERVER=$!
trap 'kill -KILL $SERVER' EXIT
for _ in $(seq 600); do [ -s "$D/url" ] && break; sleep 0.05; done
for how in auto strict; do
  code=0
  $drop "$H" broadcast --fleet "$D/fleet.toml" --state "$D/state" -o json --validate=$how --set message=$how >"$D/$how.json" 2>"$D/$how" || code=$?
  echo "$how $code"
done
"#;

#[test]
fn without_a_namespace_no_instance_counts_as_validated() {
    let fleet = Fleet::start(0);
    let script = fleet.write("script", CONFINED);
    validator(&fleet, "exit 0", "");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh"])
        .arg(script)
        .arg(fleet.dir.path())
        .arg(fleet.exe())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if stderr.contains("unshare failed") || stderr.contains("max_user_namespaces") {
        crate::support::skipped(&format!("no user namespace is to be had: {stderr}"));
        return;
    }
    let result = |how: &str| std::fs::read_to_string(fleet.path(how)).unwrap();
    assert_eq!(
        stdout,
        "auto 0\nstrict 5\n",
        "{stderr}\n{}\n{}",
        result("auto"),
        result("strict")
    );
    let json: serde_json::Value = serde_json::from_str(&result("auto.json")).unwrap();
    assert_eq!(json["instances"][0]["validated"], false, "{json:#}");
    for how in ["auto", "strict"] {
        assert!(
            result(how)
                .contains("no mount namespace in which the new config could be at its live path: "),
            "{}",
            result(how)
        );
    }
    assert!(result("auto").contains("Unvalidated"), "{}", result("auto"));
}

#[test]
fn a_config_that_may_end_its_process_is_always_validated() {
    let fleet = Fleet::start(1);
    group(&fleet, "on_bad_config = \"dies\"\nvalidate = []");
    let result = fleet.broadcast(&["--set", "message=two"]).expect(5);
    assert!(
        result
            .stderr
            .contains("has no validator, and a bad config ends it"),
        "{}",
        result.stderr
    );
    group(
        &fleet,
        "on_bad_config = \"dies\"\nvalidate = [\"/nowhere/x\", \"{candidate}\"]",
    );
    let result = fleet
        .broadcast(&["--validate=auto", "--set", "message=two"])
        .expect(5);
    assert!(
        result.stderr.contains("`/nowhere/x` could not be run"),
        "{}",
        result.stderr
    );
    group(&fleet, "on_bad_config = \"dies\"");
    let result = fleet
        .broadcast(&["--validate=off", "--set", "message=two"])
        .expect(2);
    assert!(
        result
            .stderr
            .contains("--validate=off is not for group `web`"),
        "{}",
        result.stderr
    );
    assert_eq!(fleet.attempts(), [1]);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    assert_eq!(fleet.bodies(), ["two"]);
}

#[test]
fn identical_validations_run_once() {
    let fleet = Fleet::start(3);
    for (args, wanted) in [
        (", \"{exe}\", \"{args}\"", 1),
        (", \"{pid}\", \"{candidate}\"", 3),
    ] {
        validator(&fleet, "exit 0", args);
        let result = fleet
            .broadcast(&["--validate", "--dry-run", "--set", "message=two"])
            .expect(0);
        assert_eq!(
            result.stderr.matches("Valid ").count(),
            wanted,
            "{}",
            result.stderr
        );
        assert!(
            result.json["instances"]
                .as_array()
                .unwrap()
                .iter()
                .all(|i| i["validated"] == true),
            "{:#}",
            result.json
        );
    }
}

#[test]
fn an_executable_that_was_replaced_on_disk_still_validates() {
    let fleet = Fleet::start(1);
    let new = fleet.path("new");
    assert!(
        Command::new("cp")
            .arg(fleet.exe())
            .arg(&new)
            .status()
            .unwrap()
            .success()
    );
    std::fs::rename(&new, fleet.exe()).unwrap();
    let bad = fleet.write("bad.toml", "mesage = \"two\"\n");
    group(
        &fleet,
        "speaks = \"none\"\nvalidate = [\"{exe}\", \"check\", \"{candidate}\"]\nconfirm = []",
    );
    let result = fleet
        .broadcast(&["--config", bad.to_str().unwrap()])
        .expect(4);
    assert!(
        result
            .stderr
            .contains("(deleted)` refused it (exit status: 4)"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("did you mean `message`?"),
        "{}",
        result.stderr
    );
    let result = fleet
        .broadcast(&["--validate", "--set", "message=two"])
        .expect(12);
    assert!(result.stderr.contains("Valid"), "{}", result.stderr);
    assert!(
        result.stderr.contains("(deleted) check"),
        "{}",
        result.stderr
    );
}

#[test]
fn status_validates_the_live_file_like_a_broadcast() {
    let fleet = Fleet::start(2);
    let live = fleet.path("web.toml");
    fleet.write("web.toml", "message = \"newer\"\n");
    for args in ["", ", \"{args}\"", ", \"{candidate}\""] {
        validator(&fleet, &format!("cat '{}'; exit 1", live.display()), args);
        let result = fleet.status().expect(7).json.to_string();
        assert!(result.contains("next reload would fail"), "{result}");
        assert!(result.contains("newer"), "{result}");
        assert!(!result.contains(".hello-"), "{result}");
    }
}

#[test]
fn a_validator_that_could_not_run_shows_no_secret() {
    let fleet = Fleet::start(1);
    std::fs::set_permissions(
        fleet.path("web.toml"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    validator(
        &fleet,
        &format!(
            "grep message '{}' >&2; exit 126",
            fleet.path("web.toml").display()
        ),
        "",
    );
    let result = fleet
        .broadcast(&["--dry-run", "--set", "message=hunter2"])
        .expect(0);
    assert!(
        result
            .stderr
            .contains("could not be run (exit status: 126)"),
        "{}",
        result.stderr
    );
    assert!(!result.stderr.contains("hunter2"), "{}", result.stderr);
}

/// Starts an empty fleet and a server with this environment.
fn with_environment(variables: &[(&str, &str)]) -> (Fleet, Server) {
    let fleet = Fleet::start(0);
    let server = Server::start(
        Command::new(fleet.exe())
            .arg("serve")
            .arg("--config")
            .arg(fleet.path("web.toml"))
            .envs(variables.iter().copied()),
    );
    (fleet, server)
}

#[test]
fn a_validator_has_the_environment_of_the_instance_and_none_of_its_values_is_shown() {
    let variables = [
        ("COLOUR", "crimson-7"),
        ("LD_LIBRARY_PATH", "/opt/none-such"),
        ("PATH", "/opt/none-such:/usr/bin"),
        ("NOTIFY_SOCKET", "/run/x"),
        ("WATCHDOG_USEC", "1"),
        ("LISTEN_FDS", "1"),
        ("NGINX", "7;"),
        ("GUNICORN_FD", "7"),
        ("HAPROXY_MWORKER_REEXEC", "1"),
    ];
    let (fleet, _server) = with_environment(&variables);
    let script = "[ \"$COLOUR,$LD_LIBRARY_PATH,$PATH\" = crimson-7,/opt/none-such,/opt/none-such:/usr/bin ] && echo has them
        echo \"colour is <$COLOUR>\" >&2; env | grep -cE '^(NOTIFY_SOCKET|WATCHDOG|LISTEN|NGINX|GUNICORN_FD|HAPROXY_MWORKER)'";
    validator(&fleet, &format!("{script}{}", no(&fleet, "one")), "");
    let result = fleet.broadcast(&["--set", "message=two"]).expect(4);
    let plain = words(&result).replace("\n  | ", "\n");
    assert!(
        plain.contains("colour is <***>\nhas them\n0"),
        "{}",
        result.stderr
    );
    let kept = Command::new("grep")
        .args(["-r", "crimson-7"])
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    assert!(
        !result.json.to_string().contains("crimson-7"),
        "{:#}",
        result.json
    );
    assert!(kept.stdout.is_empty(), "{:#}", result.json);
    // The command of an assertion gets none of it.
    group(
        &fleet,
        "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"echo $COLOUR-\"]\nequals = \"-\"",
    );
    fleet.broadcast(&["--set", "message=three"]).expect(0);
}

/// A program that overwrites its arguments and environment with a title, as `setproctitle` does.
const TITLED: &str = "import ctypes, os, signal, sys
title = sys.argv[1].encode()
start, end = (int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[at]) for at in (45, 48))
ctypes.memset(start, 0, end - start)
ctypes.memmove(start, title, len(title))
signal.signal(signal.SIGHUP, lambda *_: None)
open(sys.argv[2], 'w').close()
while True:
    signal.pause()
";

#[test]
fn hidden_environment_and_arguments_are_not_guessed() {
    let fleet = Fleet::start(0);
    let (program, there) = (fleet.write("titled.py", TITLED), fleet.path("there"));
    let config = fleet.write("app.conf", "colour = 1\n");
    let titled = Command::new("/usr/bin/python3")
        .arg(program)
        .arg("worker: master [app]")
        .arg(&there)
        .env("COLOUR", "x")
        .spawn()
        .unwrap();
    let titled = Ending(titled);
    until("it has its title", || there.exists());
    let say = |more: &str| {
        let pid = format!(
            "instances = [{{ pid = {} }}]\nmatch = {{ exe = \"python3*\" }}",
            titled.0.id()
        );
        fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"app\"\nreloads = true\nconfirm = []\nconfig = {config:?}\n{pid}\n{more}\n"));
    };
    let dry = |code: i32| {
        fleet
            .broadcast(&[
                "--validate",
                "--dry-run",
                "--config",
                fleet.write("new.conf", "colour = 2\n").to_str().unwrap(),
            ])
            .expect(code)
    };
    for asks in ["\"{args}\"", "\"{opt:-c}\", \"{candidate}\""] {
        say(&format!("validate = [\"true\", {asks}]"));
        assert!(dry(5).stderr.contains("a title that hides the arguments"));
    }
    say(
        "validate = [\"true\", \"{args}\"]\nvalidate_titled = [\"sh\", \"-c\", \"test -z \\\"$COLOUR\\\" && grep -q 2 $0\", \"{candidate}\"]",
    );
    assert!(dry(0).stderr.contains("in a clean environment"));
}

/// A process that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_validator_that_rejects_the_running_config_cannot_judge() {
    let fleet = Fleet::start(1);
    validator(&fleet, "echo no license here; exit 1", "");
    let result = fleet
        .broadcast(&["--validate", "--set", "message=two"])
        .expect(5);
    assert!(
        result.stderr.contains("cannot judge here"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("no license here"),
        "{}",
        result.stderr
    );
    let result = fleet.status().expect(0);
    assert!(
        result.json["instances"][0]["unvalidated"]
            .as_str()
            .unwrap()
            .contains("cannot judge here"),
        "{:#}",
        result.json
    );
    let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
    assert!(result.stderr.contains("Unvalidated"), "{}", result.stderr);
    assert!(
        result.json["instances"][0]["validated"] == false,
        "{}",
        result.stderr
    );
    group(&fleet, "on_bad_config = \"dies\"\nvalidate = [\"false\"]");
    fleet.broadcast(&["--set", "message=three"]).expect(5);
    assert_eq!(fleet.bodies(), ["two"]);
    // The running config is unknown if the file has changed since, so the rejection stands.
    let text = "speaks = \"none\"\nconfirm = []\nvalidate = [\"false\"]";
    fleet.write("web.toml", "message = \"edited\"\n");
    group(&fleet, text);
    fleet.broadcast(&["--set", "message=three"]).expect(4);
}

#[test]
fn files_that_a_validator_writes_are_discarded() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let (log, kept, live) = (
        fleet.write("app.log", "old"),
        fleet.path("kept"),
        fleet.path("web.toml"),
    );
    std::fs::create_dir_all(kept.join("sub")).unwrap();
    std::fs::write(kept.join("sub/file"), "here").unwrap();
    let before = (fleet.text(), kept.metadata().unwrap().permissions().mode());
    let tricks = [format!("echo new >>'{}'", log.display()), format!("chown nobody '{0}' && chmod 700 '{0}' && rm -r '{0}/sub' && mkdir '{0}/sub'", kept.display()), format!("echo x >>'{0}' && sed -i s/two/TWO/ '{0}' && rm '{0}'", live.display()), "touch /made-by-a-validator /var/made-by-a-validator /dev/shm/made-by-a-validator && cd / && mkdir made && mv made moved".to_owned(), ];
    validator(&fleet, &format!("set -e\n{}", tricks.join("\n")), "");
    let result = fleet
        .broadcast(&["--validate", "--dry-run", "--set", "message=two"])
        .expect(0);
    assert!(
        result.json["instances"][0]["validated"] == true,
        "{:#}",
        result.json
    );
    assert_eq!(
        (fleet.text(), kept.metadata().unwrap().permissions().mode()),
        before
    );
    assert_eq!(
        (
            std::fs::read_to_string(&log).unwrap().as_str(),
            std::fs::read_to_string(kept.join("sub/file"))
                .unwrap()
                .as_str()
        ),
        ("old", "here")
    );
    for made in [
        "/made-by-a-validator",
        "/var/made-by-a-validator",
        "/dev/shm/made-by-a-validator",
        "/moved",
        "/made",
    ] {
        assert!(!std::path::Path::new(made).exists(), "{made}");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("lowerdir="), "{mounts}");
}

#[test]
fn a_validator_that_writes_too_much_gives_no_verdict() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let fill = fleet.path("fill");
    for script in [
        format!("head -c 70000000 /dev/zero >'{}'", fill.display()),
        format!(
            "head -c 70000000 /dev/zero >'{}' 2>/dev/null; sleep 0.3; exit 1",
            fill.display()
        ),
    ] {
        validator(&fleet, &script, "");
        let result = fleet
            .broadcast(&["--validate", "--dry-run", "--set", "message=two"])
            .expect(5);
        assert!(result.stderr.contains("64 MiB"), "{}", result.stderr);
        assert!(!fill.exists(), "{}", result.stderr);
    }
}

#[test]
fn a_large_log_that_the_instance_holds_open_is_empty_to_its_validator() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    let log = fleet.path("app.log");
    let file = std::fs::File::create(&log).unwrap();
    // Larger than a validator may write, and sparse on the disk.
    file.set_len(200 << 20).unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "exec 7>>'{}'; exec '{}' serve --config '{}'",
        log.display(),
        fleet.exe().display(),
        fleet.path("web.toml").display()
    ));
    let _server = Server::start(&mut command);
    validator(
        &fleet,
        &format!("[ ! -s '{0}' ] && echo line >>'{0}'", log.display()),
        "",
    );
    fleet
        .broadcast(&["--validate", "--set", "message=two"])
        .expect(0);
    assert_eq!(log.metadata().unwrap().len(), 200 << 20);
}

#[test]
fn a_validator_still_reaches_the_sockets_of_other_processes() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let path = fleet.path("db.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let connects = format!(
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{}\")'",
        path.display()
    );
    validator(&fleet, &connects, "");
    fleet
        .broadcast(&["--validate", "--dry-run", "--set", "message=two"])
        .expect(0);
}

#[test]
fn different_validators_run_side_by_side() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        crate::support::skipped(crate::support::ONE_PROCESSOR);
        return;
    }
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(2);
    // Each waits until it sees that the other has begun.
    let script = "R=/proc/$PPID/root$1; : >\"$R/began.$2\"; for _ in $(seq 500); do [ \"$(ls \"$R\" | grep -c began)\" = 2 ] && exit 0; sleep 0.02; done; exit 1";
    validator(
        &fleet,
        script,
        &format!(", \"{}\", \"{{pid}}\"", fleet.dir.path().display()),
    );
    fleet
        .broadcast(&["--validate", "--dry-run", "--set", "message=two"])
        .expect(0);
}

#[test]
fn an_error_message_about_the_candidate_is_a_rejection_despite_exit_0() {
    let fleet = Fleet::start(1);
    // As squid does with a line that it ignores.
    let leaves_out = "grep -n bad \"$1\" | sed \"s|^\\([0-9]*\\):|parse: $1 line \\1: |\"\n";
    validator(&fleet, leaves_out, ", \"{candidate}\"");
    let result = fleet.broadcast(&["--set", "message=bad"]).expect(4);
    let named = format!(
        "parse: {} line 2: message = \"bad\"",
        fleet.path("web.toml").display()
    );
    assert!(result.stderr.contains("ends with 0"), "{}", result.stderr);
    assert!(result.stderr.contains(&named), "{}", result.stderr);
    assert!(fleet.text().contains("\"one\""), "nothing is touched");
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    // The lines of a secret are not shown.
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{text}secret = true\n"));
    let result = fleet.broadcast(&["--set", "message=bad"]).expect(4);
    assert!(result.stderr.contains("are not shown"), "{}", result.stderr);
    assert!(!result.stderr.contains("parse:"), "{}", result.stderr);
    validator(
        &fleet,
        "grep -q bad \"$1\" && echo 'FATAL: not taken'\nexit 0",
        ", \"{candidate}\"",
    );
    assert!(
        fleet
            .broadcast(&["--set", "message=bad"])
            .expect(4)
            .stderr
            .contains("FATAL: not taken")
    );
}

#[test]
fn an_error_message_about_every_config_is_no_rejection() {
    let fleet = Fleet::start(1);
    let lists = "grep -n '' \"$1\" | sed \"s|^\\([0-9]*\\):|reads $1 line \\1: |\"\n";
    let warns = "grep -n six \"$1\" | sed \"s|^\\([0-9]*\\):|warning: $1:\\1: deprecated: |\"\n";
    for (message, script) in [
        ("two", lists),
        ("three", "date; echo \"error: no license ($$)\"\n"),
        ("error: four", "cat \"$1\"\n"),
        ("six", warns),
    ] {
        validator(&fleet, script, ", \"{candidate}\"");
        fleet
            .broadcast(&["--set", &format!("message={message}")])
            .expect(0);
    }
}
