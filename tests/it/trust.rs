//! As root, no path that another user could redirect decides anything, and nothing is removed by
//! its name alone.

use std::{
    os::unix::fs::{MetadataExt, lchown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use crate::{
    support::{CommandResult, Fleet, kill_while_validating, until},
    users::{as_other_user, give, is_root, script},
};

const OTHER_UID: u32 = 65534;

/// Returns the number of attempts of a race.
pub(crate) fn tries() -> usize {
    if std::env::var_os("HELLO_TEST_FULL").is_some() {
        1000
    } else {
        200
    }
}

/// A process of another user. Killed by its pid when dropped.
pub(crate) struct Alice(pub(crate) Child);

impl Drop for Alice {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a shell script of another user, which runs until the test ends.
pub(crate) fn alice(text: &str) -> Alice {
    let mut command = as_other_user(Path::new("/bin/sh"));
    Alice(command.args(["-c", text]).spawn().unwrap())
}

/// Creates a directory of another user.
fn theirs(fleet: &Fleet) -> PathBuf {
    std::fs::set_permissions(
        fleet.dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let dir = fleet.path("alice");
    std::fs::create_dir(&dir).unwrap();
    give(&dir, OTHER_UID, 0o755);
    dir
}

fn broadcast(fleet: &Fleet, file: &Path, state: &Path) -> CommandResult {
    let mut command = Command::new(fleet.exe());
    command
        .args(["broadcast", "-o", "json", "--set", "message=x", "--fleet"])
        .arg(file)
        .arg("--state")
        .arg(state);
    CommandResult::of(&mut command)
}

#[test]
fn a_fleet_that_is_reached_by_a_link_of_another_user_is_refused_by_name() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let (alice, before) = (theirs(&fleet), fleet.text());
    let link = alice.join("fleet.toml");
    symlink(fleet.path("fleet.toml"), &link).unwrap();
    let result = broadcast(&fleet, &link, &fleet.path("state")).expect(2);
    assert!(
        result.stderr.contains(link.to_str().unwrap()),
        "{}",
        result.stderr
    );
    assert!(result.stderr.contains("--fleet"), "{}", result.stderr);
    // In the middle of the path, and with the working directory of another user.
    symlink(fleet.dir.path(), alice.join("dir")).unwrap();
    broadcast(&fleet, &alice.join("dir/fleet.toml"), &fleet.path("state")).expect(2);
    let mut command = Command::new(fleet.exe());
    let result = CommandResult::of(
        command
            .args(["broadcast", "-o", "json", "--set", "message=x", "--state"])
            .arg(fleet.path("state"))
            .current_dir(&alice),
    );
    assert!(result.expect(2).stderr.contains("can change"));
    // Also if the environment names it.
    let result = CommandResult::of(
        Command::new(fleet.exe())
            .args(["status", "-o", "json"])
            .env("HELLO_FLEET", &link),
    );
    assert!(result.stderr.contains("can change"), "{}", result.stderr);
    // The owner of a link counts in a sticky directory.
    let sticky = fleet.path("sticky");
    std::fs::create_dir(&sticky).unwrap();
    std::fs::set_permissions(
        &sticky,
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )
    .unwrap();
    let link = sticky.join("fleet.toml");
    symlink(fleet.path("fleet.toml"), &link).unwrap();
    lchown(&link, Some(OTHER_UID), None).unwrap();
    broadcast(&fleet, &link, &fleet.path("state")).expect(2);
    assert_eq!(fleet.text(), before);
    lchown(&link, Some(0), None).unwrap();
    broadcast(&fleet, &link, &fleet.path("state")).expect(0);
}

#[test]
fn a_state_path_that_another_user_could_redirect_is_refused_and_not_created() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let (alice, before) = (theirs(&fleet), fleet.text());
    std::fs::create_dir_all(fleet.path("roots/state")).unwrap();
    symlink(fleet.path("roots"), alice.join("link")).unwrap();
    symlink(fleet.path("nowhere"), alice.join("dangling")).unwrap();
    for state in [
        "link/state",
        "link",
        "link/new/state",
        "dangling",
        "home/state",
    ] {
        let result = broadcast(&fleet, &fleet.path("fleet.toml"), &alice.join(state)).expect(1);
        assert!(result.stderr.contains("--state"), "{}", result.stderr);
    }
    assert_eq!(
        (
            fleet.text(),
            fleet.path("nowhere").exists(),
            alice.join("home").exists()
        ),
        (before, false, false)
    );
    assert_eq!(
        (
            std::fs::read_dir(fleet.path("roots")).unwrap().count(),
            std::fs::read_dir(fleet.path("roots/state"))
                .unwrap()
                .count()
        ),
        (1, 0)
    );
    // The operator's own link counts like the path.
    symlink(fleet.path("roots"), fleet.path("own")).unwrap();
    broadcast(
        &fleet,
        &fleet.path("fleet.toml"),
        &fleet.path("own/new/state"),
    )
    .expect(0);
    assert!(fleet.path("roots/new/state/runs").is_dir());
}

#[test]
fn a_config_that_a_link_of_another_user_leads_to_is_not_read() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let alice = theirs(&fleet);
    fleet.write("secret", "message = \"secret\"\nlisten = \"127.0.0.1:0\"\n");
    symlink(fleet.path("secret"), alice.join("new.toml")).unwrap();
    let named = alice.join("new.toml").display().to_string();
    assert!(
        fleet
            .broadcast(&["--config", &named])
            .expect(1)
            .stderr
            .contains("can change")
    );
    assert!(
        fleet
            .broadcast(&["--set", &format!("message=@{named}")])
            .expect(1)
            .stderr
            .contains("can change")
    );
    assert_eq!(fleet.bodies(), ["one"]);
    // A file of another user is the operator's choice.
    std::fs::remove_file(alice.join("new.toml")).unwrap();
    std::fs::copy(fleet.path("secret"), alice.join("new.toml")).unwrap();
    give(&alice.join("new.toml"), OTHER_UID, 0o644);
    fleet.broadcast(&["--config", &named]).expect(0);
}

#[test]
fn a_fleet_that_is_exchanged_all_the_time_is_never_followed() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(0);
    let alice_dir = theirs(&fleet);
    let marked = fleet.write("marked.toml", "version = 1\n[[group]]\nname = \"followed\"\nkind = \"hello\"\nmatch = { exe = \"/none\" }\n");
    let at = alice_dir.display();
    // It alternates between a link to root's file, a file of their own, and nothing.
    let race = format!(
        "while :; do ln -sfn '{}' '{at}/l'; mv '{at}/l' '{at}/fleet.toml'; echo x > '{at}/f'; mv '{at}/f' '{at}/fleet.toml'; done",
        marked.display()
    );
    let _alice = alice(&race);
    until("it is there", || {
        alice_dir.join("fleet.toml").symlink_metadata().is_ok()
    });
    for _ in 0..tries() {
        let result = broadcast(&fleet, &alice_dir.join("fleet.toml"), &fleet.path("state"));
        assert!(result.code == 2, "{}: {}", result.code, result.stderr);
        assert!(
            !result.stderr.contains("followed"),
            "{}: {}",
            result.code,
            result.stderr
        );
    }
}

/// Returns the names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_directory_of_root_with_the_name_of_a_staged_file_stays() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let kept = |name: &str| {
        std::fs::create_dir_all(fleet.path(name).join("deep")).unwrap();
        std::fs::write(fleet.path(name).join("deep/file"), "root's").unwrap();
    };
    // With a name that no run uses.
    kept(".web.toml.hello-dead");
    let result = fleet.broadcast(&["--set", "message=two"]).expect(0);
    assert!(
        fleet.path(".web.toml.hello-dead/deep/file").exists(),
        "{}",
        result.stderr
    );
    assert!(result.stderr.contains("Left beside"), "{}", result.stderr);
    std::fs::remove_dir_all(fleet.path(".web.toml.hello-dead")).unwrap();
    // With a name that a killed run used.
    kill_while_validating(&fleet);
    let staged = names(fleet.dir.path())
        .into_iter()
        .find(|name| name.starts_with(".web.toml.hello-"))
        .unwrap();
    std::fs::rename(fleet.path(&staged), fleet.path("moved")).unwrap();
    kept(&staged);
    let result = fleet.broadcast(&["--set", "message=three"]).expect(0);
    assert!(
        fleet.path(&staged).join("deep/file").exists(),
        "it is not what was staged"
    );
    let note = &result.json["notes"][0];
    assert!(note["event"] == "left_beside", "{:#}", result.json);
    assert!(
        note["path"].as_str().unwrap().ends_with(&staged),
        "{:#}",
        result.json
    );
    // Once an operator has removed it, nothing is named any more.
    std::fs::remove_dir_all(fleet.path(&staged)).unwrap();
    assert!(fleet.broadcast(&["--set", "message=four"]).expect(0).json["notes"].is_null());
    assert_eq!(names(&fleet.path("state/staged")), Vec::<String>::new());
}

#[test]
fn files_staged_by_a_killed_run_are_removed_by_every_command_that_ends_a_run() {
    let fleet = Fleet::start(1);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    let hidden = || {
        names(fleet.dir.path())
            .into_iter()
            .filter(|name| name.starts_with('.'))
            .count()
    };
    let left = || {
        kill_while_validating(&fleet);
        assert_eq!((hidden(), names(&fleet.path("state/staged")).len()), (1, 1));
    };
    // Nothing is left to resume: exit 3. The last run is reverted after a question alone: exit 2.
    for (verb, exit) in [("resume", 3), ("revert", 2)] {
        left();
        fleet.continue_run(verb, &[]).expect(exit);
        assert_eq!(
            (hidden(), names(&fleet.path("state/staged")).len()),
            (0, 0),
            "{verb}"
        );
    }
    // It has ended: exit 5.
    let run = names(&fleet.path("state/runs")).pop().unwrap();
    left();
    fleet.continue_run("resume", &[&run]).expect(5);
    assert_eq!(hidden(), 0);
    left();
    let output = Command::new(fleet.exe())
        .args(["forget", &run, "--state"])
        .arg(fleet.path("state"))
        .output()
        .unwrap();
    assert_eq!((output.status.code(), hidden()), (Some(0), 0));
    left();
    fleet.broadcast(&["--set", "message=three"]).expect(0);
    assert_eq!(hidden(), 0);
}

#[test]
fn the_staged_files_of_a_run_under_way_stay() {
    let fleet = Fleet::start(1);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let (there, go) = (fleet.path("there"), fleet.path("go"));
    let validator = script(
        &fleet,
        "validator",
        &format!(
            "#!/bin/sh\ntouch /proc/$PPID/root'{}'\nwhile [ ! -e /proc/$PPID/root'{}' ]; do sleep 0.02; done\n",
            there.display(),
            go.display()
        ),
    );
    fleet.write(
        "fleet.toml",
        &format!("{text}validate = [\"{validator}\", \"{{candidate}}\"]\n"),
    );
    let mut run = fleet
        .command(&["-q", "--set", "message=two"])
        .spawn()
        .unwrap();
    until("it has staged", || there.exists());
    let staged = || {
        names(fleet.dir.path())
            .into_iter()
            .find(|name| name.starts_with(".web.toml.hello-"))
    };
    let ino = |name: &str| fleet.path(name).metadata().unwrap().ino();
    let before = staged().map(|name| ino(&name));
    fleet.continue_run("resume", &[]).expect(3);
    assert!(before.is_some());
    assert_eq!(staged().map(|name| ino(&name)), before);
    std::fs::write(&go, "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert_eq!((fleet.bodies(), staged()), (vec!["two".to_owned()], None));
}

/// Writes a script that another user may change in one of two ways. It would leave a file `ran`.
fn foreign_script(fleet: &Fleet, owner: u32, mode: u32) -> (String, PathBuf) {
    let ran = fleet.path("ran");
    let text = format!(
        "#!/bin/sh\ntouch '{}'\necho 'message = \"x\"'\n",
        ran.display()
    );
    let path = script(fleet, &format!("script-{owner}"), &text);
    give(Path::new(&path), owner, mode);
    (path, ran)
}

#[test]
fn root_runs_no_command_of_the_operator_that_another_user_can_change() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::start(1);
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    for (owner, mode, repair) in [(OTHER_UID, 0o755, "chown 0"), (0, 0o777, "chmod go-w")] {
        let (program, ran) = foreign_script(&fleet, owner, mode);
        for more in [
            format!(
                "source = \"exec://s/k\"\n[[store]]\nurl = \"exec://s\"\nget = [\"{program}\"]\n"
            ),
            format!("[hosts]\ninventory = [\"{program}\"]\n"),
            format!("[hosts]\nlist = [\"a\"]\nconnect = [\"{program}\", \"{{address}}\"]\n"),
            format!("rollout = {{ gate = [\"{program}\"] }}\n"),
            format!("validate = [\"{program}\"]\n"),
        ] {
            fleet.write("fleet.toml", &format!("{group}{more}"));
            let verb = if more.contains("[hosts]") {
                "hosts"
            } else {
                "broadcast"
            };
            let mut command = Command::new(fleet.exe());
            command
                .arg(verb)
                .arg("--fleet")
                .arg(fleet.path("fleet.toml"));
            if verb == "broadcast" {
                command.arg("--state").arg(fleet.path("state"));
            }
            if more.starts_with("rollout") || more.starts_with("validate") {
                command.arg("--set").arg(format!("message=m{owner}"));
            }
            let end = command.output().unwrap();
            let text = [end.stdout, end.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            // A validator that is not run leaves its instance unvalidated, which the run says.
            let is_fatal = !more.starts_with("validate");
            assert_eq!(end.status.success(), !is_fatal, "{more}{text}");
            assert!(!ran.exists(), "{more}");
            let repair = format!("{repair} {program}");
            assert!(text.contains(&repair), "{more}{text}");
        }
    }
}
