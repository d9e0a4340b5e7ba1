//! Directories and several files as targets. The daemon is the test binary, run again, in a group
//! without a kind.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::support::{CommandResult, Fleet, get, install_program};

/// Runs the daemon. `DAEMON` holds its paths, separated by `:`. `/` serves the loaded content,
/// `/loads` and `/refused` count. A file with `broken` or the text of `DAEMON_REFUSES` is rejected,
/// and the loaded content stays.
#[test]
#[ignore = "not a test: the daemon that the others start"]
fn daemon() {
    let Ok(paths) = std::env::var("DAEMON") else {
        return;
    };
    let hung = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, hung.clone()).unwrap();
    let refuses = std::env::var("DAEMON_REFUSES").unwrap_or_else(|_| "broken".into());
    let load = || {
        let mut all = String::new();
        paths
            .split(':')
            .for_each(|path| listing(Path::new(path), &mut all));
        Some(all).filter(|all| !all.contains(&refuses))
    };
    let (mut served, mut loads, mut refused) = (load().unwrap(), 1, 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\nhttp://{}/", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        if hung.swap(false, Ordering::SeqCst) {
            match load() {
                Some(all) => (served, loads) = (all, loads + 1),
                None => refused += 1,
            }
        }
        let Ok(mut stream) = stream else { continue };
        let (mut request, mut piece) = (String::new(), [0; 1024]);
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            request += &String::from_utf8_lossy(&piece[..length]);
            if request.ends_with("\r\n\r\n") {
                break;
            }
        }
        let answer = match request.split(' ').nth(1).unwrap_or_default() {
            "/loads" => loads.to_string(),
            "/refused" => refused.to_string(),
            _ => served.clone(),
        };
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
    }
}

/// Returns every file and link below `path` with its content, sorted.
fn listing(path: &Path, into: &mut String) {
    let kind = path.symlink_metadata().unwrap().file_type();
    if kind.is_dir() {
        let mut all: Vec<PathBuf> = std::fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        all.sort();
        all.iter().for_each(|path| listing(path, into));
    } else if kind.is_symlink() {
        *into += &format!(
            "{} -> {}\n",
            path.display(),
            std::fs::read_link(path).unwrap().display()
        );
    } else {
        *into += &format!(
            "{}={}\n",
            path.display(),
            std::fs::read_to_string(path).unwrap()
        );
    }
}

/// A running daemon. Killed by its pid when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) url: String,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command, paths: &[PathBuf]) -> Self {
        let paths: Vec<&str> = paths.iter().map(|p| p.to_str().unwrap()).collect();
        command
            .args([
                "--exact",
                "targets::daemon",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("DAEMON", paths.join(":"));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Kept first, so that it is killed even if its first line is wrong.
        let mut daemon = Self {
            child,
            url: String::new(),
        };
        daemon.url = stdout
            .lines()
            .map(Result::unwrap)
            .find(|l| l.starts_with("http://"))
            .expect("it says where it listens");
        daemon
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn says(&self, path: &str) -> String {
        get(&self.url, path).1
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with `etc/conf.d` and `etc/main.conf`, the daemon's program, and a group that finds it.
struct Testbed {
    fleet: Fleet,
    exe: PathBuf,
    targets: Vec<PathBuf>,
}

const CONFIRM: &str = "reloads = true\ntimeout = \"20s\"\n\
                       [[group.confirm]]\nhttp = \"http://{listen}/loads\"\nincreased = true\n[[group.reject]]\nhttp = \"http://{listen}/refused\"\nincreased = true\n";

impl Testbed {
    /// `names` below `etc` are the targets.
    fn new(names: &[&str]) -> Self {
        let fleet = Fleet::start(0);
        let exe = fleet.path("daemon");
        install_program(&std::env::current_exe().unwrap(), &exe);
        write(
            &fleet.path("etc/conf.d"),
            &[
                ("a.conf", "old"),
                ("kept.conf", "kept"),
                ("sub/deep/x", "x"),
                ("empty", ""),
            ],
        );
        symlink("../elsewhere", fleet.path("etc/conf.d/link")).unwrap();
        write(&fleet.path("etc"), &[("main.conf", "main")]);
        let targets = names
            .iter()
            .map(|n| fleet.path("etc").canonicalize().unwrap().join(n))
            .collect();
        let testbed = Self {
            fleet,
            exe,
            targets,
        };
        testbed.group("");
        testbed
    }

    fn group(&self, more: &str) {
        let targets: Vec<String> = self
            .targets
            .iter()
            .map(|t| format!("[{:?}]", t.to_str().unwrap()))
            .collect();
        let (exe, targets) = (self.exe.display(), targets.join(", "));
        self.fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"d\"\nmatch = {{ exe = \"{exe}\" }}\nconfig = [{targets}]\n{more}\n{CONFIRM}"));
    }

    fn start(&self) -> Daemon {
        Daemon::start(&mut Command::new(&self.exe), &self.targets)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.fleet.path(path)
    }

    /// Writes a folder `new` for `--config` with exactly these files.
    fn new_files(&self, files: &[(&str, &str)]) -> String {
        let new = self.path("new");
        let _ = std::fs::remove_dir_all(&new);
        write(&new, files);
        new.display().to_string()
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    /// Returns the content on the disk as the daemon would list it.
    fn disk(&self) -> String {
        let mut all = String::new();
        self.targets.iter().for_each(|path| listing(path, &mut all));
        all
    }

    /// Returns the names in `etc`. No staged file may remain there.
    fn beside(&self) -> Vec<OsString> {
        let mut names: Vec<OsString> = std::fs::read_dir(self.path("etc"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    }

    fn run(&self, args: &[&str], code: i32) -> CommandResult {
        let result = self.fleet.broadcast(args).expect(code);
        assert!(
            !self
                .beside()
                .iter()
                .any(|name| name.as_bytes().starts_with(b".")),
            "left behind: {:?}",
            self.beside()
        );
        result
    }

    /// Runs hello with a failing system call. Returns its exit code and its text output.
    fn injected(&self, what: &str, new: &str) -> Option<(Option<i32>, String)> {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-o", "/dev/null", "-e", &format!("inject={what}")])
            .arg(self.fleet.exe());
        command
            .args(["broadcast", "--config", new, "--fleet"])
            .arg(self.path("fleet.toml"))
            .arg("--state")
            .arg(self.path("state"));
        match command.output() {
            Ok(output) => Some((
                output.status.code(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )),
            Err(_) => {
                crate::support::skipped("strace is not installed");
                None
            }
        }
    }

    /// Writes a validator, which runs between survey and install.
    fn validator(&self, script: &str) {
        let path = self
            .fleet
            .write("validator", &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.group(&format!(
            "validate = [\"{}\", \"{{candidate}}\"]",
            path.display()
        ));
    }
}

/// Writes files below `dir` with modes that ignore the umask.
fn write(dir: &Path, files: &[(&str, &str)]) {
    std::fs::create_dir_all(dir).unwrap();
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        for dir in path
            .ancestors()
            .skip(1)
            .take_while(|a| *a != dir)
            .chain([dir])
        {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

#[test]
fn a_directory_is_merged_and_extra_entries_are_removed_only_on_request() {
    let testbed = Testbed::new(&["conf.d"]);
    let daemon = testbed.start();
    std::fs::set_permissions(
        testbed.path("etc/conf.d/a.conf"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let odd = "two words\nof two lines";
    let new = testbed.new_files(&[
        ("a.conf", "new"),
        ("sub/y", "y"),
        (odd, "odd"),
        (".hidden", ""),
        ("other/z", "z"),
    ]);
    let result = testbed.run(&["--config", &new], 0);
    assert_eq!(
        (result.states(), daemon.says("/loads")),
        (vec!["confirmed"], "2".to_owned())
    );
    assert_eq!(daemon.says("/"), testbed.disk());
    for (name, text) in [
        ("a.conf", "new"),
        (odd, "odd"),
        ("sub/y", "y"),
        ("sub/deep/x", "x"),
        ("kept.conf", "kept"),
        ("empty", ""),
        (".hidden", ""),
        ("other/z", "z"),
    ] {
        assert_eq!(testbed.text(&format!("etc/conf.d/{name}")), text);
    }
    assert_eq!(
        std::fs::read_link(testbed.path("etc/conf.d/link")).unwrap(),
        Path::new("../elsewhere")
    );
    assert_eq!(
        testbed.path("etc/conf.d/a.conf").metadata().unwrap().mode() & 0o7777,
        0o640,
        "the mode is the live one's"
    );
    // Old and new content are kept as ordinary archives.
    let (run, target) = (
        result.json["run"].as_str().unwrap(),
        &result.json["targets"][0],
    );
    assert_eq!(target["kind"], "directory");
    for (digest, has) in [
        (&target["from"], "./sub/deep/x"),
        (&target["to"], "./other/z"),
    ] {
        let archive = testbed
            .path("state/runs")
            .join(run)
            .join(digest.as_str().unwrap());
        let listed = Command::new("tar").arg("tf").arg(archive).output().unwrap();
        assert!(
            String::from_utf8_lossy(&listed.stdout)
                .lines()
                .any(|line| line == has),
            "{listed:?}"
        );
    }
    testbed.run(&["--config", &new, "--prune"], 0);
    assert_eq!(
        (
            daemon.says("/"),
            testbed.path("etc/conf.d/kept.conf").exists(),
            testbed.path("etc/conf.d/link").exists()
        ),
        (testbed.disk(), false, false)
    );
    // An unchanged, proven target causes no signal. After an edit it does, since the daemon cannot
    // report its config.
    let result = testbed.run(&["--config", &new], 0);
    assert_eq!(
        (result.states(), daemon.says("/loads")),
        (vec!["unchanged"], "3".to_owned())
    );
    std::fs::write(testbed.path("etc/conf.d/a.conf"), "new").unwrap();
    let result = testbed.run(&["--config", &new], 0);
    assert_eq!(
        (result.states(), daemon.says("/loads")),
        (vec!["confirmed"], "4".to_owned())
    );
    // Without the record of the proof, the served content is unknown.
    std::fs::remove_dir_all(testbed.path("state")).unwrap();
    let result = testbed.run(&["--config", &new], 0);
    assert!(!result.stderr.contains("Installed"), "{}", result.stderr);
    assert!(result.stderr.contains("No rollback"), "{}", result.stderr);
}

#[test]
fn a_dry_run_lists_the_changes_of_entries_and_shows_no_secret() {
    let testbed = Testbed::new(&["conf.d"]);
    let daemon = testbed.start();
    let before = (
        testbed.disk(),
        testbed.path("etc/conf.d").metadata().unwrap().ino(),
    );
    let new = testbed.new_files(&[("a.conf", "new"), ("added/x", "x"), ("kept.conf", "kept")]);
    let screen = |args: &[&str]| {
        let output = testbed
            .fleet
            .command(&["--dry-run", "--config", &new])
            .args(args)
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let result = screen(&[]);
    let lines = |result: &str| {
        result
            .lines()
            .take_while(|l| !l.starts_with("wave "))
            .filter(|l| l.starts_with("  ") && !l.starts_with("  |"))
            .map(|l| l.trim().replace("   ", " "))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lines(&result),
        ["changed a.conf", "added added/", "added added/x"],
        "{result}"
    );
    assert!(result.contains("--- now/a.conf\n"), "{result}");
    assert!(result.contains("+++ new/a.conf\n"), "{result}");
    assert!(result.contains("-old"), "{result}");
    assert!(result.contains("+new"), "{result}");
    assert!(!result.contains("kept"), "{result}");
    let result = screen(&["--prune"]);
    let gone = [
        "removed empty",
        "removed link",
        "removed sub/",
        "removed sub/deep/",
        "removed sub/deep/x",
    ];
    assert_eq!(lines(&result)[3..], gone, "{result}");
    assert!(result.contains("-x\n"), "{result}");
    let result = testbed.run(&["--dry-run", "--config", &new, "--prune"], 0);
    assert_eq!(
        result.json["targets"][0]["entries"][0],
        serde_json::json!({ "path": "a.conf", "change": "changed" })
    );
    // One file that is not readable by all makes the whole directory secret. Names are not secret.
    std::fs::set_permissions(
        testbed.path("etc/conf.d/sub/deep/x"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let result = screen(&[]);
    assert!(lines(&result).len() == 3, "{result}");
    assert!(!result.contains("-old"), "{result}");
    assert!(!result.contains("+new"), "{result}");
    assert_eq!(
        (
            testbed.disk(),
            testbed.path("etc/conf.d").metadata().unwrap().ino()
        ),
        before
    );
    assert_eq!(
        (daemon.says("/loads"), testbed.beside()),
        ("1".to_owned(), vec!["conf.d".into(), "main.conf".into()])
    );
}

#[test]
fn a_directory_that_does_not_load_is_rolled_back_and_proven() {
    let testbed = Testbed::new(&["conf.d"]);
    let daemon = testbed.start();
    let before = (
        testbed.disk(),
        testbed.path("etc/conf.d").metadata().unwrap().ino(),
    );
    let new = testbed.new_files(&[("a.conf", "broken"), ("b.conf", "b")]);
    let result = testbed.run(&["--config", &new, "--prune"], 6);
    assert_eq!(
        (
            result.states(),
            result.json["instances"][0]["failure"]["kind"].as_str()
        ),
        (vec!["reverted"], Some("rejected"))
    );
    assert_eq!(
        (
            testbed.disk(),
            testbed.path("etc/conf.d").metadata().unwrap().ino()
        ),
        before,
        "the very directory is back"
    );
    assert_eq!(
        (
            daemon.says("/"),
            daemon.says("/loads"),
            daemon.says("/refused")
        ),
        (before.0, "2".to_owned(), "1".to_owned())
    );
}

#[test]
fn several_targets_are_one_step() {
    let testbed = Testbed::new(&["main.conf", "conf.d"]);
    let daemons = [testbed.start(), testbed.start()];
    let new = testbed.new_files(&[("main.conf", "new main"), ("conf.d/a.conf", "new")]);
    let result = testbed.run(&["--config", &new], 0);
    assert_eq!(
        (
            result.states(),
            result.json["targets"].as_array().unwrap().len()
        ),
        (vec!["confirmed"; 2], 2)
    );
    assert!(
        daemons
            .iter()
            .all(|d| d.says("/loads") == "2" && d.says("/") == testbed.disk()),
        "one signal for both"
    );
    assert_eq!(
        (
            testbed.text("etc/main.conf"),
            testbed.text("etc/conf.d/a.conf"),
            testbed.text("etc/conf.d/kept.conf")
        ),
        ("new main".into(), "new".into(), "kept".into())
    );
    // A target without an entry stays, and both are rolled back.
    let before = testbed.disk();
    let new = testbed.new_files(&[("main.conf", "broken")]);
    let result = testbed.run(&["--config", &new], 6);
    assert_eq!(
        (result.states(), testbed.disk()),
        (vec!["reverted", "untouched"], before.clone())
    );
    let new = testbed.new_files(&[("main.conf", "x"), ("conf.d/a.conf", "broken")]);
    assert_eq!(
        testbed.run(&["--config", &new], 6).states(),
        ["reverted", "untouched"]
    );
    let new = testbed.new_files(&[("main.conf", "x"), (".other", "")]);
    let result = testbed.run(&["--config", &new], 4);
    assert!(result.stderr.contains(".other"), "{}", result.stderr);
    assert!(
        result.stderr.contains("no target of that name"),
        "{}",
        result.stderr
    );
    assert_eq!(testbed.disk(), before);
}

#[test]
fn a_failed_second_install_rolls_back_the_first_without_a_signal() {
    for targets in [["main.conf", "conf.d"], ["conf.d", "main.conf"]] {
        let testbed = Testbed::new(&targets);
        let daemon = testbed.start();
        let (second, first) = if targets[1] == "conf.d" {
            ("conf.d/kept.conf", "main.conf")
        } else {
            ("main.conf", "conf.d/a.conf")
        };
        let before = testbed.text(&format!("etc/{first}"));
        // In place, it would change only its own view of the live path, so it uses its parent's
        // root.
        testbed.validator(&format!(
            "printf 'somebody else' > /proc/$PPID/root'{}'",
            testbed.path("etc").join(second).display()
        ));
        let new = testbed.new_files(&[("main.conf", "new"), ("conf.d/a.conf", "new")]);
        // The second does not have its old bytes, so the operator must act.
        let result = testbed.run(&["--config", &new], 7);
        assert!(
            result.stderr.contains("changed by another process"),
            "{}",
            result.stderr
        );
        assert!(result.stderr.contains("Rolled back"), "{}", result.stderr);
        assert_eq!(
            (result.states(), daemon.says("/loads")),
            (vec!["untouched"], "1".to_owned())
        );
        assert_eq!(
            (
                testbed.text(&format!("etc/{first}")),
                testbed.text(&format!("etc/{second}"))
            ),
            (before, "somebody else".to_owned())
        );
    }
}

#[test]
fn a_directory_that_changes_after_the_survey_is_left_alone() {
    let testbed = Testbed::new(&["conf.d"]);
    let daemon = testbed.start();
    testbed.validator(&format!(
        "ln -s x /proc/$PPID/root'{}'",
        testbed.path("etc/conf.d/sub/somebody").display()
    ));
    let result = testbed.run(&["--config", &testbed.new_files(&[("a.conf", "new")])], 5);
    assert!(
        result.stderr.contains("changed by another process"),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains("nothing was touched"),
        "{}",
        result.stderr
    );
    assert_eq!(
        (testbed.text("etc/conf.d/a.conf"), daemon.says("/loads")),
        ("old".into(), "1".into())
    );
    assert!(testbed.path("etc/conf.d/sub/somebody").is_symlink());
}

#[test]
fn a_file_that_another_tool_wrote_beside_each_target_is_its_candidate() {
    let testbed = Testbed::new(&["main.conf", "conf.d"]);
    let daemon = testbed.start();
    std::fs::set_permissions(testbed.path("etc"), std::fs::Permissions::from_mode(0o755)).unwrap();
    testbed.group("source = \"{config}.new\"");
    let result = testbed.run(&[], 1);
    assert!(
        result.stderr.contains("etc/conf.d.new`: nothing is there"),
        "{}",
        result.stderr
    );
    write(&testbed.path("etc"), &[("main.conf.new", "new main")]);
    testbed.run(&[], 0);
    assert_eq!(
        (
            testbed.text("etc/main.conf"),
            testbed.text("etc/conf.d/a.conf")
        ),
        ("new main".into(), "old".into()),
        "one that has none stays"
    );
    write(&testbed.path("etc/conf.d.new"), &[("a.conf", "new")]);
    testbed.run(&[], 0);
    assert_eq!(
        (
            testbed.text("etc/conf.d/a.conf"),
            testbed.text("etc/conf.d/kept.conf"),
            daemon.says("/")
        ),
        ("new".into(), "kept".into(), testbed.disk())
    );
    let result = testbed.run(&[], 0);
    assert!(!result.stderr.contains("Installed"), "{}", result.stderr);
    assert!(
        testbed.path("etc/conf.d.new/a.conf").exists(),
        "{}",
        result.stderr
    );
    let target = &result.json["targets"][1];
    assert_eq!(target["to"], target["disk"], "it is there already");
    testbed.run(&["--prune"], 0);
    assert!(!testbed.path("etc/conf.d/kept.conf").exists());
    assert!(daemon.says("/") == testbed.disk());
    let before = testbed.disk();
    write(&testbed.path("etc/conf.d.new"), &[("a.conf", "newer")]);
    std::fs::set_permissions(
        testbed.path("etc/conf.d.new/a.conf"),
        std::fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    let result = testbed.run(&[], 5);
    assert!(
        result
            .stderr
            .contains("users other than root and you can write `a.conf` in it"),
        "{}",
        result.stderr
    );
    // A file named on the command line has priority.
    assert_eq!(testbed.disk(), before);
    testbed.run(
        &["--config", &testbed.new_files(&[("main.conf", "named")])],
        0,
    );
    assert_eq!(testbed.text("etc/main.conf"), "named");
    std::fs::set_permissions(
        testbed.path("etc/conf.d.new/a.conf"),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    write(&testbed.path("etc"), &[("main.conf.new", "broken")]);
    let before = testbed.disk();
    assert_eq!(
        (testbed.run(&[], 6).states(), testbed.disk()),
        (vec!["reverted"], before)
    );
}

#[test]
fn a_candidate_that_is_no_directory_is_refused_for_a_directory() {
    let testbed = Testbed::new(&["conf.d"]);
    let daemon = testbed.start();
    let before = (
        testbed.disk(),
        testbed.path("etc/conf.d").metadata().unwrap().ino(),
    );
    let new = testbed.new_files(&[("a.conf", "new")]);
    nix::unistd::mkfifo(&testbed.path("new/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(testbed.path("nothing")).unwrap();
    let nothing = testbed.path("nothing").display().to_string();
    for (args, code, says) in [
        (
            &["--config", &format!("{new}/a.conf")][..],
            4,
            "it is no directory",
        ),
        (
            &["--config", &new],
            4,
            "`pipe` in it is neither file, directory nor link",
        ),
        (&["--config", &nothing, "--prune"], 4, "nothing is in it"),
        (&["--set", "a=b"], 4, "--set edits one file"),
        (&["--prune"], 2, "--config"),
        (&["--config", "/nowhere"], 1, "cannot read"),
    ] {
        let result = testbed.run(args, code);
        assert!(result.stderr.contains(says), "{args:?}: {}", result.stderr);
    }
    std::fs::remove_file(testbed.path("new/pipe")).unwrap();
    std::fs::hard_link(
        testbed.path("etc/conf.d/sub/deep/x"),
        testbed.path("second-name"),
    )
    .unwrap();
    assert!(
        testbed
            .run(&["--config", &new], 5)
            .stderr
            .contains("`sub/deep/x` in it has more than one hard link")
    );
    std::fs::remove_file(testbed.path("second-name")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(testbed.path("etc/conf.d/socket")).unwrap();
    assert!(
        testbed
            .run(&["--config", &new], 5)
            .stderr
            .contains("`socket` in it is neither file, directory nor link")
    );
    drop(socket);
    std::fs::remove_file(testbed.path("etc/conf.d/socket")).unwrap();
    let lock = std::fs::File::open(testbed.path("etc")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    testbed.run(&["--config", &new], 9);
    assert_eq!(
        (
            testbed.disk(),
            testbed.path("etc/conf.d").metadata().unwrap().ino()
        ),
        before
    );
    assert_eq!(daemon.says("/loads"), "1");
}

#[test]
fn an_instance_with_the_directory_as_working_directory_is_refused_before_an_exchange() {
    let testbed = Testbed::new(&["conf.d"]);
    let outside = testbed.start();
    let inside = Daemon::start(
        Command::new(&testbed.exe).current_dir(testbed.path("etc/conf.d/sub")),
        &testbed.targets,
    );
    let new = testbed.new_files(&[("a.conf", "new")]);
    let before = testbed.disk();
    let result = testbed.run(&["--config", &new], 5);
    assert!(
        result.stderr.contains(&format!(
            "pid {} has its working directory in",
            inside.child.id()
        )),
        "{}",
        result.stderr
    );
    assert!(
        !result
            .stderr
            .contains(&format!("pid {} ", outside.child.id())),
        "{}",
        result.stderr
    );
    assert!(testbed.disk() == before, "{}", result.stderr);
    testbed.run(&[], 0);
    assert_eq!(
        (outside.says("/loads"), inside.says("/loads")),
        ("2".to_owned(), "2".to_owned())
    );
}

/// Runs a script in a new mount namespace. Its last line on stdout is `code LOADS`. `start` starts
/// the daemon, `cast` runs hello.
fn in_mounts(testbed: &Testbed, script: &str) -> Option<(String, String)> {
    let text = format!(
        "set -eu\nD='{}'; H='{}'; B='{}'; E=\"$D/etc\"; export DAEMON='{}'\n\
         start() {{ \"$@\" \"$B\" --exact targets::daemon --ignored --nocapture --test-threads=1 >\"$D/out\" 2>/dev/null & P=$!; trap 'kill $P' EXIT; \
         for _ in $(seq 600); do grep -q ^http: \"$D/out\" && break; sleep 0.05; done; }}\n\
         cast() {{ code=0; \"$H\" broadcast --fleet \"$D/fleet.toml\" --state \"$D/state\" --config \"$D/new\" || code=$?; }}\n\
         {script}\nls -A \"$E\" >&2; printf '%s %s\\n' \"$code\" \"$(curl -s \"$(grep ^http: \"$D/out\")loads\")\"\n",
        testbed.fleet.dir.path().display(),
        testbed.fleet.exe().display(),
        testbed.exe.display(),
        testbed.targets[0].display(),
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
    Some((
        String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        stderr,
    ))
}

#[test]
fn a_mount_in_the_directory_is_refused_in_either_mount_namespace() {
    let own = "start unshare -m sh -c 'mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"' sh";
    for (script, says) in [
        (
            "mount --bind \"$E/conf.d\" \"$E/conf.d\"; start; cast",
            "it is a mount point",
        ),
        (
            "mount --bind \"$E/conf.d/empty\" \"$E/conf.d/a.conf\"; start; cast",
            "`a.conf` in it is a mount point",
        ),
        (
            "mount -t tmpfs none \"$E/conf.d/sub\"; start; cast",
            "`sub` in it is a mount point",
        ),
        (
            &format!("{own} \"$D/new\" \"$E/conf.d\"; cast"),
            "sees another file",
        ),
        (
            &format!("{own} \"$E/conf.d\" \"$E/conf.d\"; cast"),
            "sees another file",
        ),
        (
            &format!("{own} \"$D/new/b\" \"$E/conf.d/a.conf\"; cast"),
            "has a mount of its own at",
        ),
    ] {
        let testbed = Testbed::new(&["conf.d"]);
        testbed.new_files(&[("a.conf", "new"), ("b", "b")]);
        let Some((result, stderr)) = in_mounts(&testbed, script) else {
            return;
        };
        assert_eq!(result, "5 1", "{script}: {stderr}");
        assert!(stderr.contains(says), "{script}: {stderr}");
        assert!(stderr.contains("conf.d"), "{script}: {stderr}");
        assert!(!stderr.contains(".hello-"), "{script}: {stderr}");
    }
}

#[test]
fn a_full_disk_stops_staging_and_never_the_rollback() {
    let mount = "mount -t tmpfs -o size=96k none \"$E\"; mkdir \"$E/conf.d\"; echo old > \"$E/conf.d/a.conf\"; start";
    let testbed = Testbed::new(&["conf.d"]);
    testbed.new_files(&[("a.conf", "new"), ("big", &"x".repeat(200_000))]);
    let Some((result, stderr)) = in_mounts(
        &testbed,
        &format!("{mount}; cast; grep -q old \"$E/conf.d/a.conf\"; test ! -e \"$E/conf.d/big\""),
    ) else {
        return;
    };
    assert_eq!(result, "1 1", "{stderr}");
    assert!(stderr.contains("No space"), "{stderr}");
    assert!(stderr.contains("etc/conf.d"), "{stderr}");
    assert!(!stderr.contains(".hello-"), "{stderr}");
    // It fills between staging and install, and the installed content does not load.
    let testbed = Testbed::new(&["conf.d"]);
    testbed.new_files(&[("a.conf", "broken"), ("b", "b")]);
    testbed.validator(&format!(
        "dd if=/dev/zero of=/proc/$PPID/root'{}' bs=1k 2>/dev/null; exit 0",
        testbed.path("etc/fill").display()
    ));
    let Some((result, stderr)) = in_mounts(
        &testbed,
        &format!("{mount}; cast; grep -q old \"$E/conf.d/a.conf\"; test ! -e \"$E/conf.d/b\""),
    ) else {
        return;
    };
    assert_eq!(result, "6 2", "{stderr}");
    assert!(stderr.contains("Rolled back"), "{stderr}");
    assert!(!stderr.contains(".hello-"), "{stderr}");
}

#[test]
fn a_directory_beside_which_nothing_can_be_written_is_refused() {
    if !crate::support::runs_as_root("only root can become a user that may not write") {
        return;
    }
    let testbed = Testbed::new(&["conf.d"]);
    let other_user = |program: &Path| {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
            ])
            .arg(program);
        command
    };
    for dir in [testbed.fleet.dir.path(), &testbed.path("etc")] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::chown(testbed.path("etc/conf.d"), Some(65534), Some(65534)).unwrap();
    let daemon = Daemon::start(&mut other_user(&testbed.exe), &testbed.targets);
    let new = testbed.new_files(&[("a.conf", "new")]);
    let mut command = other_user(testbed.fleet.exe());
    let state = testbed.path("state-of-other-user");
    std::fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    command
        .args([
            "broadcast",
            "--config",
            &new,
            "--state",
            state.to_str().unwrap(),
            "--fleet",
        ])
        .arg(testbed.path("fleet.toml"));
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("conf.d"), "{stderr}");
    assert!(
        stderr.contains("cannot stage new content next to it: Permission denied"),
        "{stderr}"
    );
    assert_eq!(
        (testbed.text("etc/conf.d/a.conf"), daemon.says("/loads")),
        ("old".into(), "1".into())
    );
}

#[test]
fn a_thousand_files_are_exchanged_as_one() {
    let testbed = Testbed::new(&["conf.d"]);
    for at in 0..1000 {
        std::fs::write(
            testbed.path(&format!("etc/conf.d/sub/{at}")),
            at.to_string(),
        )
        .unwrap();
    }
    let daemon = testbed.start();
    let before = testbed.path("etc/conf.d/sub/17").metadata().unwrap();
    testbed.run(
        &["--config", &testbed.new_files(&[("sub/500", "changed")])],
        0,
    );
    assert!(daemon.says("/").contains("sub/500=changed\n"));
    assert!(daemon.says("/") == testbed.disk());
    let after = testbed.path("etc/conf.d/sub/17").metadata().unwrap();
    assert_eq!(
        (after.mtime(), after.mtime_nsec(), after.mode()),
        (before.mtime(), before.mtime_nsec(), before.mode())
    );
}

#[test]
fn a_second_exchange_that_fails_rolls_the_run_back() {
    for targets in [["main.conf", "conf.d"], ["conf.d", "main.conf"]] {
        let testbed = Testbed::new(&targets);
        let daemon = testbed.start();
        let before = testbed.disk();
        let new = testbed.new_files(&[("main.conf", "new"), ("conf.d/a.conf", "new")]);
        // The probe and the exchange of the first target come before it.
        let Some((code, stderr)) = testbed.injected("renameat2:error=EIO:when=3", &new) else {
            return;
        };
        assert_eq!(
            (code, testbed.disk(), daemon.says("/loads")),
            (Some(6), before, "1".to_owned()),
            "{stderr}"
        );
        assert!(stderr.contains(targets[1]), "{stderr}");
        assert!(stderr.contains("os error 5"), "{stderr}");
        assert!(stderr.contains("Rolled back"), "{stderr}");
        assert_eq!(testbed.beside(), ["conf.d", "main.conf"]);
    }
}

#[test]
fn an_unsupported_or_failed_exchange_of_a_directory_touches_nothing() {
    let testbed = Testbed::new(&["conf.d"]);
    let daemon = testbed.start();
    let before = (
        testbed.disk(),
        testbed.path("etc/conf.d").metadata().unwrap().ino(),
    );
    let new = testbed.new_files(&[("a.conf", "new")]);
    // The first exchange is the probe before anything is touched, the second that of the target.
    for (what, code, says) in [
        (
            "renameat2:error=EINVAL:when=1",
            5,
            "cannot exchange two directories",
        ),
        ("renameat2:error=EIO:when=2", 1, "os error 5"),
        ("renameat2:error=EXDEV:when=2", 5, "cannot exchange it"),
        ("mkdirat:error=EROFS", 1, "os error 30"),
    ] {
        let Some((result, stderr)) = testbed.injected(what, &new) else {
            return;
        };
        assert_eq!(result, Some(code), "{what}: {stderr}");
        assert!(stderr.contains(says), "{what}: {stderr}");
        assert_eq!(
            (
                testbed.disk(),
                testbed.path("etc/conf.d").metadata().unwrap().ino()
            ),
            before,
            "{what}"
        );
        assert_eq!(testbed.beside(), ["conf.d", "main.conf"], "{what}");
    }
    assert_eq!(daemon.says("/loads"), "1");
}

#[test]
fn a_directory_that_was_edited_in_place_rolls_back_to_the_proven_content() {
    let testbed = Testbed::new(&["conf.d"]);
    let daemon = testbed.start();
    testbed.run(
        &["--config", &testbed.new_files(&[("a.conf", "proven")])],
        0,
    );
    let proven = testbed.disk();
    std::fs::write(testbed.path("etc/conf.d/a.conf"), "broken").unwrap();
    let result = testbed.run(&[], 6);
    assert_eq!(
        (
            result.states(),
            testbed.text("etc/conf.d/a.conf"),
            daemon.says("/")
        ),
        (vec!["reverted"], "proven".to_owned(), proven),
        "{}",
        result.stderr
    );
}
