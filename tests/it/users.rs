//! Whose word counts: other users' processes, and two operators at once.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use crate::support::{Fleet, get, until};

const NOBODY: &str = "65534";

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can start servers of other users");
    }
    root
}

/// A server of another user, killed by its pid.
struct Other(Child, String);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn as_nobody(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program);
    command
}

fn serve(fleet: &Fleet, config: &str) -> Other {
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = as_nobody(fleet.exe()).args(["serve", "--config"]).arg(fleet.path(config)).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut url = String::new();
    let stdout = child.stdout.take().unwrap();
    let mut other = Other(child, String::new());
    BufReader::new(stdout).read_line(&mut url).unwrap();
    other.1 = url.trim().to_owned();
    assert!(other.1.starts_with("http://"), "{url:?}");
    other
}

fn group(fleet: &Fleet, more: &str) {
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    fleet.write(
        "fleet.toml",
        &format!("version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"3s\"\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n{more}\n"),
    );
}

fn script(fleet: &Fleet, name: &str, text: &str) -> String {
    let path = fleet.write(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_server_of_another_user_is_left_out_by_name_and_nothing_of_it_is_touched() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let theirs = fleet.write("theirs.toml", "message = \"theirs\"\nlisten = \"127.0.0.1:0\"\n");
    let other = serve(&fleet, "theirs.toml");
    // Whatever validates leaves a trace of whose executable it was.
    let trace = fleet.path("trace");
    let validator = script(
        &fleet,
        "validator",
        &format!("#!/bin/sh\nreadlink \"$1\" >> '{}'; echo \"$1\" >> '{}'\n\"$1\" check \"$2\"\n", trace.display(), trace.display()),
    );
    group(&fleet, &format!("validate = [\"{validator}\", \"{{exe}}\", \"{{candidate}}\"]"));
    let said = fleet.broadcast(&["--validate", "--set", "message=x"]).expect(0);
    assert!(said.stderr.contains("Left out") && said.stderr.contains(&format!("pid {} belongs to uid {NOBODY}", other.0.id())), "{}", said.stderr);
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "message = \"theirs\"\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!((get(&other.1, "/").1, fleet.bodies()), ("theirs".to_owned(), vec!["x".to_owned()]));
    let traced = std::fs::read_to_string(&trace).unwrap();
    assert!(traced.contains(&format!("/proc/{}/exe", fleet.pid(0))) && !traced.contains(&format!("/proc/{}/", other.0.id())), "{traced}");
    let (_, told) = get(&other.1, "/-/config");
    assert!(told.contains("\"seq\":1"), "never signalled: {told}");
}

#[test]
fn a_group_of_another_user_must_say_where_its_configs_lie_and_is_validated_as_that_user() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    let other = serve(&fleet, "web.toml");
    let before = fleet.text();
    group(&fleet, "user = \"65534\"");
    assert!(fleet.broadcast(&["--set", "message=x"]).expect(5).stderr.contains("config_under"));
    let under = format!("user = \"65534\"\nconfig_under = \"{}\"", fleet.dir.path().display());
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    group(&fleet, &under);
    assert!(fleet.broadcast(&["--set", "message=x"]).expect(5).stderr.contains("can write"));
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((fleet.text(), get(&other.1, "/").1), (before, "one".to_owned()));
    let validator = script(&fleet, "validator", "#!/bin/sh\nprintf '%s %s %s' \"$(id -u)\" \"$(id -G)\" \"$(pwd)\" >&2; exit 1\n");
    group(&fleet, &format!("{under}\nvalidate = [\"{validator}\"]"));
    let said = fleet.broadcast(&["--set", "message=x"]).expect(4);
    assert!(said.stderr.contains(&format!("{NOBODY} {NOBODY} {}", std::env::current_dir().unwrap().display())), "{}", said.stderr);
    group(&fleet, &under);
    fleet.broadcast(&["--validate", "--set", "message=x"]).expect(0);
    assert_eq!(get(&other.1, "/").1, "x");
}

#[test]
fn of_two_broadcasts_at_once_one_does_its_job_and_the_other_names_its_owner() {
    let fleet = Fleet::start(1);
    // The first waits in its validator until the test lets it go.
    let (there, go) = (fleet.path("there"), fleet.path("go"));
    let wait = format!("#!/bin/sh\ntouch '{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done\n", there.display(), go.display());
    let validator = script(&fleet, "validator", &wait);
    group(&fleet, &format!("validate = [\"{validator}\"]"));
    let mut first = fleet.command(&["-q", "--set", "message=first"]).stderr(Stdio::null()).spawn().unwrap();
    until("the first holds the lock", || there.exists());
    let owner = format!("pid {} of uid", first.id());
    let mut second = Command::new(fleet.exe());
    second.args(["broadcast", "-q", "--set", "message=second", "--fleet"]).arg(fleet.path("fleet.toml")).arg("--state").arg(fleet.path("another-state"));
    let output = second.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{stderr}");
    assert!(stderr.contains(&owner) && stderr.contains("message=first"), "{stderr}");
    if is_root() {
        let other = serve(&fleet, "web.toml");
        let mut command = as_nobody(fleet.exe());
        command.args(["broadcast", "-q", "--set", "message=third", "--fleet"]).arg(fleet.path("fleet.toml")).arg("--state").arg("/nonexistent");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains(&owner));
        drop(other);
    }
    std::fs::write(&go, "").unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(fleet.bodies(), ["first"]);
    fleet.broadcast(&["--set", "message=second"]).expect(0);
}

#[test]
fn the_command_of_a_fact_runs_as_the_user_of_its_instance_and_inherits_nothing() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    let other = serve(&fleet, "web.toml");
    let says = script(&fleet, "says", "#!/bin/sh\nprintf '%s %s %s' \"$(id -u)\" \"$(id -G)\" \"${HELLO_STATE-none}\"\n");
    let under = format!("user = \"65534\"\nconfig_under = \"{}\"", fleet.dir.path().display());
    group(&fleet, &format!("{under}\n[[group.confirm]]\nexec = [\"{says}\"]\nequals = \"{NOBODY} {NOBODY} none\""));
    let output = fleet.command(&["--set", "message=x"]).env("HELLO_STATE", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(get(&other.1, "/").1, "x");
}
