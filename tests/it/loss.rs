//! Changes of other programs are not lost silently: attributes are compared like bytes, and late
//! edits are kept.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use crate::{
    support::{Fleet, install_program, until},
    users::{is_root, script},
};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn add_to_group(fleet: &Fleet, more: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &(text + more));
}

/// Adds a validator that runs this between survey and install.
fn meanwhile(fleet: &Fleet, text: &str) {
    // Files that it writes are discarded, so it uses the root of its supervisor.
    let validator = script(
        fleet,
        "validator",
        &format!(
            "#!/bin/sh\ncd /proc/$PPID/root'{}'\n{text}\n",
            fleet.dir.path().display()
        ),
    );
    add_to_group(
        fleet,
        &format!("validate = [\"{validator}\", \"{{candidate}}\"]\n"),
    );
}

/// Adds a gate that runs this after the install and fails, so that everything is rolled back.
fn gate(fleet: &Fleet, text: &str) {
    let gate = script(
        fleet,
        "gate",
        &format!(
            "#!/bin/sh\ncd '{}'\n{text}\nexit 1\n",
            fleet.dir.path().display()
        ),
    );
    add_to_group(fleet, &format!("[rollout]\ngate = [\"{gate}\"]\n"));
}

fn has_setfacl(fleet: &Fleet) -> bool {
    let file = fleet.write("list", "");
    let has = Command::new("setfacl")
        .args(["-m", "u:65534:rw"])
        .arg(file)
        .status()
        .is_ok_and(|status| status.success());
    if !has {
        crate::support::skipped("in part: setfacl cannot set an access list here");
    }
    has
}

#[test]
fn an_attribute_that_changes_between_survey_and_install_is_drift() {
    for (change, says) in [
        ("chmod 600 web.toml", "mode 644 -> 600"),
        ("chown 65534 web.toml", "uid 0 -> 65534"),
        ("setfacl -m u:65534:rw web.toml", "posix_acl_access"),
    ] {
        let fleet = Fleet::start(1);
        if (change.starts_with("chown") && !is_root())
            || (change.starts_with("setfacl") && !has_setfacl(&fleet))
        {
            continue;
        }
        meanwhile(&fleet, change);
        let before = fleet.text();
        let result = fleet.broadcast(&["--set", "message=two"]).expect(5);
        assert!(result.stderr.contains(says), "{change}: {}", result.stderr);
        assert_eq!(
            (fleet.text(), fleet.attempts()),
            (before, vec![1]),
            "{change}"
        );
        let now = fleet.path("web.toml").metadata().unwrap();
        assert!(
            now.mode() & 0o777 != 0o644 || now.uid() == 65534,
            "{change} is not reverted"
        );
    }
}

#[test]
fn an_attribute_that_changes_before_a_rollback_is_left_alone_and_named() {
    for (change, says) in [
        ("chmod 600 web.toml", "mode 644 -> 600"),
        ("setfacl -m u:65534:rw web.toml", "posix_acl_access"),
    ] {
        let fleet = Fleet::start(1);
        if change.starts_with("setfacl") && !has_setfacl(&fleet) {
            continue;
        }
        gate(&fleet, change);
        let result = fleet.broadcast(&["--set", "message=two"]).expect(7);
        assert!(
            result.json.to_string().contains(says),
            "{change}: {}\n{:#}",
            result.stderr,
            result.json
        );
        assert!(fleet.text().contains("two"), "{change}");
    }
}

/// Writes to the old config through a descriptor from before the run, after the install. Returns
/// the report.
fn edits_late(fleet: &Fleet, code: i32, path: &Path, new: &str) -> serde_json::Value {
    let mut old = OpenOptions::new().append(true).open(path).unwrap();
    let before = path.metadata().unwrap().ino();
    let (there, go) = (fleet.path("there"), fleet.path("go"));
    let text = format!(
        "#!/bin/sh\ntouch '{}'\nwhile [ ! -e '{}' ]; do sleep 0.02; done\nexit {}\n",
        there.display(),
        go.display(),
        i32::from(code != 0)
    );
    let gate = script(fleet, "gate", &text);
    add_to_group(fleet, &format!("[rollout]\ngate = [\"{gate}\"]\n"));
    let out = File::create(fleet.path("out")).unwrap();
    let args: &[&str] = if new.is_empty() {
        &["-o", "json", "--set", "message=two"]
    } else {
        &["-o", "json", "--config", new]
    };
    let mut run = fleet.command(args).stdout(out).spawn().unwrap();
    until("it is installed", || there.exists());
    assert_ne!(path.metadata().unwrap().ino(), before);
    old.write_all(b"# an edit that came too late\n").unwrap();
    drop(old);
    std::fs::write(&go, "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(code));
    serde_json::from_slice(&std::fs::read(fleet.path("out")).unwrap()).unwrap()
}

fn is_kept(fleet: &Fleet, result: &serde_json::Value, path: &str) {
    let note = &result["notes"][0];
    assert!(note["event"] == "late_edit", "{result:#}");
    assert!(note["path"].as_str().unwrap().ends_with(path), "{result:#}");
    let kept = Path::new(note["kept"].as_str().unwrap());
    assert!(
        std::fs::read_to_string(kept)
            .unwrap()
            .ends_with("# an edit that came too late\n")
    );
    assert_eq!(kept.metadata().unwrap().mode() & 0o777, 0o600);
    let run = fleet
        .path("state/runs")
        .join(result["run"].as_str().unwrap());
    assert!(
        kept.canonicalize()
            .unwrap()
            .starts_with(run.canonicalize().unwrap())
    );
    assert!(
        std::fs::read_to_string(run.join("events.jsonl"))
            .unwrap()
            .contains("late_edit")
    );
}

#[test]
fn a_late_edit_through_an_old_descriptor_is_named_and_kept() {
    let fleet = Fleet::start(1);
    let result = edits_late(&fleet, 0, &fleet.path("web.toml"), "");
    is_kept(&fleet, &result, "web.toml");
    assert_eq!(fleet.bodies(), ["two"]);
}

#[test]
fn a_late_edit_is_kept_when_another_file_caused_the_rollback() {
    let fleet = Fleet::start(1);
    let result = edits_late(&fleet, 6, &fleet.path("web.toml"), "");
    is_kept(&fleet, &result, "web.toml");
    assert!(!fleet.text().contains("too late"));
}

#[test]
fn a_late_edit_of_a_file_in_a_directory_is_kept() {
    let fleet = Fleet::start(0);
    let etc = fleet.path("etc");
    for (dir, text) in [("conf.d", "old"), ("new", "new")] {
        std::fs::create_dir_all(fleet.path("etc").join(dir)).unwrap();
        crate::support::write(&etc.join(dir).join("a.conf"), text);
        mode(&etc.join(dir), 0o755);
    }
    let exe = fleet.path("daemon");
    install_program(&std::env::current_exe().unwrap(), &exe);
    let target = etc.canonicalize().unwrap().join("conf.d");
    let _daemon =
        crate::targets::Daemon::start(&mut Command::new(&exe), std::slice::from_ref(&target));
    fleet.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"d\"\nmatch = {{ exe = {exe:?} }}\nconfig = {target:?}\nreloads = true\ntimeout = \"20s\"\n\
             confirm = [{{ http = \"http://{{listen}}/loads\", increased = true }}]\n"
        ),
    );
    let result = edits_late(
        &fleet,
        0,
        &target.join("a.conf"),
        etc.join("new").to_str().unwrap(),
    );
    is_kept(&fleet, &result, "conf.d/a.conf");
    assert_eq!(
        std::fs::read_to_string(target.join("a.conf")).unwrap(),
        "new"
    );
    let hidden = std::fs::read_dir(&etc)
        .unwrap()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .starts_with('.')
        })
        .count();
    assert_eq!(hidden, 0, "nothing is left beside it");
}
