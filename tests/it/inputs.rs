//! Bad input causes a clear error with file and position. Every byte and process stays as it was.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use crate::support::Fleet;

/// Everything that must stay as it was.
fn picture(fleet: &Fleet) -> (String, Vec<u64>, Vec<String>, [i64; 6]) {
    let m = fleet.path("web.toml").metadata().unwrap();
    let beside = std::fs::read_dir(fleet.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with('.'))
        .collect();
    (
        fleet.text(),
        fleet.attempts(),
        beside,
        [
            m.ino().cast_signed(),
            m.mode().into(),
            m.uid().into(),
            m.gid().into(),
            m.mtime(),
            m.mtime_nsec(),
        ],
    )
}

#[test]
fn an_invalid_new_config_is_refused() {
    let fleet = Fleet::start(2);
    let before = picture(&fleet);
    let write = |name: &str, bytes: &[u8]| {
        let path = fleet.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let large = fleet.path("large");
    std::fs::File::create(&large)
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    std::os::unix::fs::symlink("/nowhere", fleet.path("dangling")).unwrap();
    for (path, code, says) in [
        (write("empty", b""), 4, "missing field `message`"),
        (fleet.dir.path().to_owned(), 4, "no regular file"),
        (large, 4, "larger than 16777216"),
        (write("binary", b"\x7fELF\x00\xff\xfe"), 4, "not UTF-8"),
        (
            write(
                "key",
                b"message = \"x\"\nlisten = \"127.0.0.1:0\"\nlgo = \"info\"\n",
            ),
            4,
            "did you mean `log`?",
        ),
        (write("type", b"message = 5\n"), 4, "invalid type"),
        (
            write("twice", b"message = \"x\"\nmessage = \"y\"\n"),
            4,
            "duplicate key",
        ),
        (
            write(
                "size",
                format!(
                    "message = \"{}\"\nlisten = \"127.0.0.1:0\"\n",
                    "x".repeat(1 << 20)
                )
                .as_bytes(),
            ),
            4,
            "larger than",
        ),
        (fleet.path("dangling"), 1, "No such file"),
        (fleet.path("missing"), 1, "No such file"),
        (Path::new("/dev/zero").to_owned(), 4, "no regular file"),
    ] {
        let result = fleet
            .broadcast(&["--validate", "--config", path.to_str().unwrap()])
            .expect(code);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(result.stderr.contains(says), "{path:?}: {}", result.stderr);
        assert!(result.stderr.contains(name), "{path:?}: {}", result.stderr);
        assert!(
            result.stderr.contains("nothing was touched"),
            "{}",
            result.stderr
        );
    }
    for (text, place) in [
        (
            "message = \"x\"\nlisten = \"127.0.0.1:0\"\nlgo = 1\n",
            ":3:1",
        ),
        ("message = \"x\"\n\nmessage = \"y\"\n", ":3:1"),
    ] {
        let path = write("placed", text.as_bytes());
        let result = fleet
            .broadcast(&["--config", path.to_str().unwrap()])
            .expect(4);
        assert!(
            result.stderr.contains(&format!("placed{place}")),
            "{}",
            result.stderr
        );
    }
    for set in [
        ["--set", "message.deep=1"],
        ["--set", "lisen=x"],
        ["--set", "log=loud"],
    ] {
        fleet.broadcast(&set).expect(4);
    }
    fleet.broadcast(&["--set", "message=@/nowhere"]).expect(1);
    fleet.broadcast(&["--set", "message"]).expect(2);
    assert_eq!(picture(&fleet), before);
}

#[test]
fn an_unreadable_file_is_refused() {
    if !crate::support::runs_as_root("only root can become a user that cannot read the file") {
        return;
    }
    let fleet = Fleet::start(0);
    std::fs::set_permissions(fleet.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let secret = fleet.write("secret.toml", "message = \"x\"\n");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ])
        .arg(fleet.exe())
        .args(["broadcast", "--config"])
        .arg(&secret)
        .arg("--fleet")
        .arg(fleet.path("fleet.toml"))
        .args(["--state", "/nonexistent"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("secret.toml"), "{stderr}");
    assert!(stderr.contains("ermission denied"), "{stderr}");
}

#[test]
fn an_invalid_fleet_file_is_refused() {
    let fleet = Fleet::start(1);
    let before = picture(&fleet);
    let good = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    for (bytes, says) in [
        (Vec::new(), "missing field `version`"),
        (b"\xff\xfe".to_vec(), "not UTF-8"),
        (
            format!("{good}kidn = \"hello\"\n").into_bytes(),
            "did you mean `kind`?",
        ),
        (format!("{good}count = \"many\"\n").into_bytes(), "count"),
        (
            format!("{good}timeout = \"1s\"\n").into_bytes(),
            "duplicate key",
        ),
    ] {
        std::fs::write(fleet.path("fleet.toml"), bytes).unwrap();
        let result = fleet.broadcast(&["--set", "message=x"]).expect(2);
        assert!(result.stderr.contains(says), "{}", result.stderr);
        assert!(result.stderr.contains("fleet.toml"), "{}", result.stderr);
    }
    fleet.write("fleet.toml", &good);
    std::fs::set_permissions(
        fleet.path("fleet.toml"),
        std::fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    assert!(
        fleet
            .broadcast(&["--set", "message=x"])
            .expect(2)
            .stderr
            .contains("chmod go-w")
    );
    std::fs::remove_file(fleet.path("fleet.toml")).unwrap();
    assert!(
        fleet
            .broadcast(&["--set", "message=x"])
            .expect(2)
            .stderr
            .contains("cannot read")
    );
    std::fs::create_dir(fleet.path("fleet.toml")).unwrap();
    std::fs::set_permissions(
        fleet.path("fleet.toml"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    assert!(
        fleet
            .broadcast(&["--set", "message=x"])
            .expect(2)
            .stderr
            .contains("no regular file")
    );
    assert_eq!(picture(&fleet), before);
}

#[test]
fn owner_mode_attributes_and_symlink_survive_install_and_rollback() {
    let fleet = Fleet::start(2);
    let (live, real) = (fleet.path("web.toml"), fleet.path("real.toml"));
    std::fs::rename(&live, &real).unwrap();
    std::os::unix::fs::symlink("real.toml", &live).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    let root = crate::support::runs_as_root("in part: only root can give a file to another user");
    if root {
        std::os::unix::fs::chown(&real, Some(65534), Some(65533)).unwrap();
    }
    let xattr =
        rustix::fs::setxattr(&real, "user.test", b"kept", rustix::fs::XattrFlags::empty()).is_ok();
    if !xattr {
        crate::support::skipped("in part: the temporary folder takes no extended attributes");
    }
    let check = |what: &str| {
        let m = real.metadata().unwrap();
        assert_eq!(m.mode() & 0o7777, 0o640, "{what}");
        assert!(!root || (m.uid(), m.gid()) == (65534, 65533), "{what}");
        let mut value = [0; 16];
        assert!(
            !xattr
                || rustix::fs::getxattr(&real, "user.test", &mut value[..])
                    .is_ok_and(|n| &value[..n] == b"kept"),
            "{what}"
        );
        assert!(live.symlink_metadata().unwrap().is_symlink());
    };
    let result = fleet.broadcast(&["--set", "message=hunter2"]).expect(0);
    assert!(!result.stderr.contains("hunter2"), "{}", result.stderr);
    check("installed");
    assert_eq!(
        fleet.text(),
        "# the shared one\nmessage = \"hunter2\" # said\nlisten = \"127.0.0.1:0\"\n",
        "comments and order stay"
    );
    fleet.stop(1);
    let mut command = fleet.command(&["--dry-run", "--set", "message=other"]);
    assert_eq!(command.output().unwrap().status.code(), Some(5));
    fleet.signal(1, nix::sys::signal::Signal::SIGCONT);
    let output = fleet
        .command(&["--dry-run", "--set", "message=other"])
        .output()
        .unwrap();
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("message ="),
        "a secret config has no diff"
    );
    // A validator stops one instance between its validation and its reload. The file is rolled back
    // with all its attributes.
    let before = real.metadata().unwrap();
    let script = fleet.write(
        "validator",
        &format!("#!/bin/sh\nkill -STOP {}\n", fleet.pid(0)),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!("{group}validate = [\"{}\"]\n", script.display()),
    );
    let result = fleet
        .broadcast(&["--timeout", "300ms", "--set", "message=other"])
        .expect(7);
    assert!(!result.stderr.contains("hunter2"));
    assert!(!result.json.to_string().contains("hunter2"));
    check("rolled back");
    let after = real.metadata().unwrap();
    assert_eq!(
        (
            after.mtime(),
            after.mtime_nsec(),
            fleet.text().contains("hunter2")
        ),
        (before.mtime(), before.mtime_nsec(), true)
    );
    fleet.signal(0, nix::sys::signal::Signal::SIGCONT);
}

/// Runs a script in a new mount namespace. Its last line on stdout is `code BODY`.
fn in_mounts(fleet: &Fleet, script: &str) -> Option<(String, String)> {
    let text = format!(
        "set -eu\nD='{}'; H='{}'\nmkdir -p \"$D/m\"\nserve() {{ \"$H\" serve --config \"$1\" >\"$D/url\" 2>/dev/null & P=$!; trap 'kill $P' EXIT; for _ in $(seq 600); do [ -s \"$D/url\" ] && break; sleep 0.05; done; }}\n\
         cast() {{ code=0; \"$H\" broadcast --fleet \"$D/fleet.toml\" --state \"$D/state\" --set message=x || code=$?; }}\n\
         {script}\nprintf '%s %s\\n' \"$code\" \"$(curl -s \"$(cat \"$D/url\")\")\"\n",
        fleet.dir.path().display(),
        fleet.exe().display()
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &text])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if stderr.contains("unshare failed") {
        crate::support::skipped("no mount namespace is to be had");
        return None;
    }
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Some((stdout, stderr))
}

#[test]
fn a_read_only_or_full_filesystem_is_refused_before_the_run() {
    for (spoil, says) in [
        ("mount -o remount,ro \"$D/m\"", "ead-only"),
        (
            "dd if=/dev/zero of=\"$D/m/fill\" bs=1k 2>/dev/null || true",
            "No space",
        ),
    ] {
        let fleet = Fleet::start(0);
        let script = format!(
            "mount -t tmpfs -o size=64k none \"$D/m\"; cp \"$D/web.toml\" \"$D/m/\"; serve \"$D/m/web.toml\"; {spoil}; cast; cmp \"$D/web.toml\" \"$D/m/web.toml\"; ls -A \"$D/m\" >&2"
        );
        let Some((result, stderr)) = in_mounts(&fleet, &script) else {
            return;
        };
        assert_eq!(result, "1 one", "{spoil}: {stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert!(stderr.contains("m/web.toml"), "{stderr}");
        assert!(!stderr.contains(".hello-"), "{stderr}");
    }
}

#[test]
fn a_full_state_directory_is_refused_before_the_run() {
    let fleet = Fleet::start(0);
    let script = "mkdir \"$D/state\"; mount -t tmpfs -o size=16k,mode=700 none \"$D/state\"; dd if=/dev/zero of=\"$D/state/fill\" bs=1k 2>/dev/null || true; serve \"$D/web.toml\"; cast; ls -A \"$D/state/runs\" \"$D/state/open\" | grep -v : >&2 || true";
    let Some((result, stderr)) = in_mounts(&fleet, script) else {
        return;
    };
    assert_eq!(result, "1 one", "{stderr}");
    assert!(stderr.contains("state directory"), "{stderr}");
    assert!(stderr.contains("No space"), "{stderr}");
    assert!(
        !stderr
            .lines()
            .any(|line| line.len() == 32 && !line.contains(' ')),
        "what did not begin takes no room: {stderr}"
    );
}

#[test]
fn a_bind_mounted_file_is_refused_in_either_mount_namespace() {
    let fleet = Fleet::start(0);
    let script = "cp \"$D/web.toml\" \"$D/other.toml\"; mount --bind \"$D/other.toml\" \"$D/web.toml\"; serve \"$D/web.toml\"; cast";
    let Some((result, stderr)) = in_mounts(&fleet, script) else {
        return;
    };
    assert_eq!(result, "5 one", "{stderr}");
    assert!(stderr.contains("mount point"), "{stderr}");
    let script = "unshare -m sh -c 'cp \"$1/web.toml\" \"$1/own.toml\"; mount --bind \"$1/own.toml\" \"$1/web.toml\"; exec \"$0\" serve --config \"$1/web.toml\"' \"$H\" \"$D\" >\"$D/url\" 2>/dev/null & P=$!; trap 'kill $P' EXIT; \
                  for _ in $(seq 600); do [ -s \"$D/url\" ] && break; sleep 0.05; done; cast";
    let fleet = Fleet::start(0);
    let Some((result, stderr)) = in_mounts(&fleet, script) else {
        return;
    };
    assert_eq!(result, "5 one", "{stderr}");
    assert!(stderr.contains("its own mount"), "{stderr}");
}

#[test]
fn a_failed_exchange_aborts_and_an_unsupported_exchange_has_a_fallback() {
    if Command::new("strace").arg("-V").output().is_err() {
        crate::support::skipped("strace is not installed");
        return;
    }
    let fleet = Fleet::start(1);
    let inject = |what: &str, message: &str| {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-o", "/dev/null", "-e", &format!("inject={what}")])
            .arg(fleet.exe());
        command
            .args(["broadcast", "--set", message, "--fleet"])
            .arg(fleet.path("fleet.toml"))
            .arg("--state")
            .arg(fleet.path("state"));
        command.output().unwrap()
    };
    let before = picture(&fleet);
    for what in ["renameat2:error=EIO:when=1", "fsync:error=EIO:when=1"] {
        let output = inject(what, "message=x");
        assert_eq!(
            output.status.code(),
            Some(1),
            "{what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(picture(&fleet), before, "{what}");
    }
    let output = inject("renameat2:error=EINVAL:when=1", "message=y");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fleet.bodies(), ["y"]);
}

#[test]
fn only_a_key_that_the_command_line_overrides_is_refused() {
    for listen in [&["--listen", "127.0.0.1:0"][..], &["--listen=127.0.0.1:0"]] {
        let mut fleet = Fleet::start(0);
        fleet.serve_with("web.toml", listen);
        let before = fleet.text();
        let result = fleet
            .broadcast(&["--set", "message=two", "--set", "listen=127.0.0.1:1"])
            .expect(5);
        assert!(result.stderr.contains("`listen` in "), "{}", result.stderr);
        assert!(
            result.stderr.contains("`--listen` overrides"),
            "{}",
            result.stderr
        );
        assert_eq!(
            (fleet.text(), fleet.bodies()),
            (before, vec!["one".to_owned()])
        );
        fleet.broadcast(&["--set", "message=two"]).expect(0);
        assert_eq!(fleet.bodies(), ["two"]);
    }
}
