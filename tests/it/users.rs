//! Processes of other users, and two operators at once.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use crate::support::{Fleet, get, until};

const OTHER_UID: &str = "65534";

pub(crate) fn is_root() -> bool {
    crate::support::runs_as_root("only root can start servers of other users")
}

/// A server of another user. Killed by its pid when dropped.
pub(crate) struct Other(pub(crate) Child, pub(crate) String);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn as_other_user(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            OTHER_UID,
            "--regid",
            OTHER_UID,
            "--clear-groups",
            "--",
        ])
        .arg(program);
    crate::support::without_cargo(&mut command);
    command
}

pub(crate) fn serve(fleet: &Fleet, config: &str) -> Other {
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = as_other_user(fleet.exe())
        .args(["serve", "--config"])
        .arg(fleet.path(config))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    let stdout = child.stdout.take().unwrap();
    let mut other = Other(child, String::new());
    BufReader::new(stdout).read_line(&mut url).unwrap();
    other.1 = url.trim().to_owned();
    assert!(other.1.starts_with("http://"), "{url:?}");
    other
}

pub(crate) fn group(fleet: &Fleet, more: &str) {
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"3s\"\nmatch = {{ exe = \"{name}\", args = [\"serve\"] }}\n{more}\n"), );
}

pub(crate) fn script(fleet: &Fleet, name: &str, text: &str) -> String {
    let path = fleet.write(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_server_of_another_user_is_skipped_by_name_and_untouched() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let theirs = fleet.write(
        "theirs.toml",
        "message = \"theirs\"\nlisten = \"127.0.0.1:0\"\n",
    );
    let other = serve(&fleet, "theirs.toml");
    // The validator records the owner of the executable.
    let trace = fleet.path("trace");
    let validator = script(
        &fleet,
        "validator",
        &format!(
            "#!/bin/sh\nreadlink \"$1\" >>/proc/$PPID/root'{}'; echo \"$1\" >>/proc/$PPID/root'{}'\n\"$1\" check \"$2\"\n",
            trace.display(),
            trace.display()
        ),
    );
    group(
        &fleet,
        &format!("validate = [\"{validator}\", \"{{exe}}\", \"{{candidate}}\"]"),
    );
    let result = fleet
        .broadcast(&["--validate", "--set", "message=x"])
        .expect(0);
    assert!(result.stderr.contains("Skipped"), "{}", result.stderr);
    assert!(
        result
            .stderr
            .contains(&format!("pid {} belongs to uid {OTHER_UID}", other.0.id())),
        "{}",
        result.stderr
    );
    assert_eq!(
        std::fs::read_to_string(&theirs).unwrap(),
        "message = \"theirs\"\nlisten = \"127.0.0.1:0\"\n"
    );
    assert_eq!(
        (get(&other.1, "/").1, fleet.bodies()),
        ("theirs".to_owned(), vec!["x".to_owned()])
    );
    let traced = std::fs::read_to_string(&trace).unwrap();
    assert!(
        traced.contains(&format!("/proc/{}/exe", fleet.pid(0))),
        "{traced}"
    );
    assert!(
        !traced.contains(&format!("/proc/{}/", other.0.id())),
        "{traced}"
    );
    let (_, told) = get(&other.1, "/-/config");
    assert!(told.contains("\"seq\":1"), "never signalled: {told}");
}

#[test]
fn a_group_of_another_user_must_name_its_config_directory_and_is_validated_as_that_user() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    let other = serve(&fleet, "web.toml");
    let before = fleet.text();
    group(&fleet, "user = \"65534\"");
    assert!(
        fleet
            .broadcast(&["--set", "message=x"])
            .expect(5)
            .stderr
            .contains("config_under")
    );
    let under = format!(
        "user = \"65534\"\nconfig_under = \"{}\"",
        fleet.dir.path().display()
    );
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    group(&fleet, &under);
    // The fleet file lies there too, and would be the first target of another user.
    assert!(
        fleet
            .broadcast(&["--set", "message=x"])
            .expect(2)
            .stderr
            .contains("can write")
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("fleet.toml");
    std::fs::copy(fleet.path("fleet.toml"), &file).unwrap();
    let mut command = Command::new(fleet.exe());
    command
        .args(["broadcast", "-o", "json", "--set", "message=x", "--fleet"])
        .arg(&file)
        .arg("--state")
        .arg(elsewhere.path().join("state"));
    assert!(
        crate::support::CommandResult::of(&mut command)
            .expect(5)
            .stderr
            .contains("can write")
    );
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        (fleet.text(), get(&other.1, "/").1),
        (before, "one".to_owned())
    );
    let validator = script(
        &fleet,
        "validator",
        "#!/bin/sh\nprintf '%s %s %s' \"$(id -u)\" \"$(id -G)\" \"$(pwd)\" >&2; exit 1\n",
    );
    group(&fleet, &format!("{under}\nvalidate = [\"{validator}\"]"));
    // It also rejects the running config, so it cannot judge.
    let result = fleet
        .broadcast(&["--validate", "--set", "message=x"])
        .expect(5);
    assert!(
        result.stderr.contains(&format!(
            "{OTHER_UID} {OTHER_UID} {}",
            std::env::current_dir().unwrap().display()
        )),
        "{}",
        result.stderr
    );
    group(&fleet, &under);
    fleet
        .broadcast(&["--validate", "--set", "message=x"])
        .expect(0);
    assert_eq!(get(&other.1, "/").1, "x");
}

/// Gives a directory or file to another user.
pub(crate) fn give(path: &std::path::Path, uid: u32, mode: u32) {
    nix::unistd::chown(path, Some(uid.into()), Some(uid.into())).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A service as packages install it: its user owns everything, and no other user may read it.
pub(crate) fn own_layout(fleet: &Fleet) -> std::path::PathBuf {
    let dir = fleet.path("data/main");
    std::fs::create_dir_all(&dir).unwrap();
    let config = dir.join("web.toml");
    std::fs::write(&config, "message = \"one\"\nlisten = \"127.0.0.1:0\"\n").unwrap();
    give(&config, 65534, 0o600);
    give(&dir, 65534, 0o700);
    give(dir.parent().unwrap(), 65534, 0o755);
    config
}

#[test]
fn a_service_that_owns_its_config_and_directories_is_reloaded() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let fleet = Fleet::start(0);
    let config = own_layout(&fleet);
    let other = serve(&fleet, "data/main/web.toml");
    let validator = script(
        &fleet,
        "validator",
        "#!/bin/sh\n[ \"$(id -u)\" = 65534 ] && grep -q message \"$1\"\n",
    );
    for (which, message) in [
        (
            format!("config_under = \"{}\"", fleet.path("data").display()),
            "two",
        ),
        (format!("config = \"{}\"", config.display()), "three"),
    ] {
        group(
            &fleet,
            &format!("user = \"65534\"\n{which}\nvalidate = [\"{validator}\", \"{{candidate}}\"]"),
        );
        fleet
            .broadcast(&["--validate", "--set", &format!("message={message}")])
            .expect(0);
        let meta = config.metadata().unwrap();
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o7777),
            (65534, 65534, 0o600)
        );
        assert_eq!(get(&other.1, "/").1, message);
    }
    assert_eq!(
        std::fs::read_dir(config.parent().unwrap()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn only_root_and_the_user_of_the_service_may_decide_where_the_config_lies() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    let config = own_layout(&fleet);
    let (main, data) = (fleet.path("data/main"), fleet.path("data"));
    let _other = serve(&fleet, "data/main/web.toml");
    let refused = |why: &str| {
        let before = std::fs::read_to_string(&config).unwrap();
        let result = fleet.broadcast(&["--set", "message=x"]).expect(5);
        assert!(result.stderr.contains(why), "{why}: {}", result.stderr);
        assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    };
    let under = format!("user = \"65534\"\nconfig_under = \"{}\"", data.display());
    for keys in [
        under.clone(),
        format!("user = \"65534\"\nconfig = \"{}\"", config.display()),
    ] {
        group(&fleet, &keys);
        // Other users can write: by a mode, or as owner, above and below.
        for (dir, uid, mode) in [
            (&main, 65534, 0o770),
            (&main, 65534, 0o702),
            (&data, 65534, 0o777),
            (&main, 1234, 0o711),
            (&data, 1234, 0o755),
        ] {
            give(dir, uid, mode);
            refused("can write");
            give(dir, 65534, if dir == &main { 0o700 } else { 0o755 });
        }
        // A path of root in their directory could lead to any other directory of root later.
        give(&main, 0, 0o755);
        refused("can replace the directory");
        give(&main, 65534, 0o700);
    }
    // They redirect a path of the group to a file of root.
    let roots = fleet.write("roots.toml", "message = \"root's\"\n");
    let link = data.join("link.toml");
    std::os::unix::fs::symlink(&roots, &link).unwrap();
    group(
        &fleet,
        &format!("user = \"65534\"\nconfig = \"{}\"", link.display()),
    );
    refused("through a symbolic link");
    // They do not decide either where a config may lie.
    let elsewhere = data.join("elsewhere");
    std::os::unix::fs::symlink(&main, &elsewhere).unwrap();
    group(
        &fleet,
        &format!(
            "user = \"65534\"\nconfig_under = \"{}\"",
            elsewhere.display()
        ),
    );
    refused("by a link");
    assert_eq!(
        std::fs::read_to_string(&roots).unwrap(),
        "message = \"root's\"\n"
    );
    // A link that root owns counts like the path itself.
    let own = fleet.path("own");
    std::os::unix::fs::symlink(&main, &own).unwrap();
    group(
        &fleet,
        &format!(
            "user = \"65534\"\nconfig = \"{}\"",
            own.join("web.toml").display()
        ),
    );
    fleet.broadcast(&["--set", "message=x"]).expect(0);
}

#[test]
fn a_link_that_appears_during_the_run_is_not_followed() {
    if !is_root() {
        return;
    }
    let roots = "message = \"one\"\nlisten = \"127.0.0.1:0\"\n";
    // The validator runs as the user of the service, after the survey and before the install.
    // A file that was replaced is left alone. A directory that was moved is still the held one, and
    // its content proves nothing.
    for (swap, code) in [
        ("mv web.toml kept.toml; ln -s ROOTS/web.toml web.toml", 5),
        ("cd ..; mv main kept; ln -s ROOTS main", 6),
    ] {
        let fleet = Fleet::start(0);
        let config = own_layout(&fleet);
        let _other = serve(&fleet, "data/main/web.toml");
        std::fs::create_dir(fleet.path("roots")).unwrap();
        let kept = fleet.write("roots/web.toml", roots);
        let swap = swap.replace("ROOTS", &fleet.path("roots").display().to_string());
        // Files that the validator writes are discarded, so it waits until another process of that
        // user has acted.
        let waits = format!("sleep 77.{}", std::process::id());
        let validator = script(
            &fleet,
            "validator",
            &format!("#!/bin/sh\n{waits}\nexit 0\n"),
        );
        let other = format!(
            "until P=$(pgrep -U {OTHER_UID} -x -f '{waits}'); do sleep 0.02; done; cd '{}' && {{ {swap}; }}; kill $P",
            config.parent().unwrap().display()
        );
        let mut other = as_other_user(std::path::Path::new("timeout"))
            .args(["60", "sh", "-c", &other])
            .spawn()
            .unwrap();
        group(
            &fleet,
            &format!(
                "user = \"65534\"\nconfig_under = \"{}\"\nvalidate = [\"{validator}\", \"{{candidate}}\"]",
                fleet.path("data").display()
            ),
        );
        let result = fleet.broadcast(&["--set", "message=x"]);
        assert!(other.wait().unwrap().success());
        assert_eq!(result.code, code, "{swap}: {}", result.stderr);
        assert!(
            std::fs::symlink_metadata(fleet.path("data/main/web.toml")).is_ok(),
            "it was done"
        );
        assert_eq!(
            std::fs::read_to_string(&kept).unwrap(),
            roots,
            "{swap}: {}",
            result.stderr
        );
        assert_eq!(
            std::fs::read_dir(fleet.path("roots")).unwrap().count(),
            1,
            "{swap}"
        );
    }
}

#[test]
fn the_second_of_two_concurrent_broadcasts_names_the_owner_of_the_first() {
    let fleet = Fleet::start(1);
    // The first run waits in its validator until the test continues it.
    let (there, go) = (fleet.path("there"), fleet.path("go"));
    let wait = format!(
        "#!/bin/sh\ntouch /proc/$PPID/root'{}'\nwhile [ ! -e /proc/$PPID/root'{}' ]; do sleep 0.02; done\n",
        there.display(),
        go.display()
    );
    let validator = script(&fleet, "validator", &wait);
    group(&fleet, &format!("validate = [\"{validator}\"]"));
    let mut first = fleet
        .command(&["-q", "--set", "message=first"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the first holds the lock", || there.exists());
    let owner = format!("pid {} of uid", first.id());
    let mut second = Command::new(fleet.exe());
    second
        .args(["broadcast", "-q", "--set", "message=second", "--fleet"])
        .arg(fleet.path("fleet.toml"))
        .arg("--state")
        .arg(fleet.path("another-state"));
    let output = second.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{stderr}");
    assert!(stderr.contains(&owner), "{stderr}");
    assert!(stderr.contains("message=first"), "{stderr}");
    if is_root() {
        let other = serve(&fleet, "web.toml");
        let mut command = as_other_user(fleet.exe());
        command
            .args(["broadcast", "-q", "--set", "message=third", "--fleet"])
            .arg(fleet.path("fleet.toml"))
            .arg("--state")
            .arg("/nonexistent");
        let output = command.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(9),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // An ordinary user may not see the open files of root's run.
        assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("pid {}", first.id())));
        drop(other);
    }
    std::fs::write(&go, "").unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(fleet.bodies(), ["first"]);
    fleet.broadcast(&["--set", "message=second"]).expect(0);
}

#[test]
fn the_command_of_an_assertion_runs_as_the_user_of_its_instance_and_inherits_nothing() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    let other = serve(&fleet, "web.toml");
    let says = script(
        &fleet,
        "says",
        "#!/bin/sh\nprintf '%s %s %s' \"$(id -u)\" \"$(id -G)\" \"${HELLO_STATE-none}\"\n",
    );
    let under = format!(
        "user = \"65534\"\nconfig_under = \"{}\"",
        fleet.dir.path().display()
    );
    group(
        &fleet,
        &format!(
            "{under}\n[[group.confirm]]\nexec = [\"{says}\"]\nequals = \"{OTHER_UID} {OTHER_UID} none\""
        ),
    );
    let output = fleet
        .command(&["--set", "message=x"])
        .env("HELLO_STATE", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(get(&other.1, "/").1, "x");
}
