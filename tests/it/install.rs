//! What is installed beside the program: completions, manual pages, and the Debian package.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use crate::support::{CommandResult, Killed, runs_as_root, skipped, until, write};

const HELLO: &str = env!("CARGO_BIN_EXE_hello");

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command that must succeed, and returns its stdout.
fn stdout(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a program is there. Reports the caller as skipped if not.
fn has(program: &str) -> bool {
    let is_there = is_installed(program);
    if !is_there {
        skipped(&format!("{program} is missing"));
    }
    is_there
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn completions(shell: &str) -> String {
    stdout(Command::new(HELLO).args(["completions", shell]))
}

/// The commands that the overview shows.
fn visible_commands() -> BTreeSet<String> {
    let overview = stdout(Command::new(HELLO).arg("help"));
    let (commands, _) = overview.split_once("Topics").unwrap();
    commands
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| line.starts_with(|c: char| c.is_lowercase()))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// The words that bash offers after `words`, of which the last one is completed.
fn offered(words: &[&str]) -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("hello.bash");
    std::fs::write(&script, completions("bash")).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c"])
        .arg(
            "source \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
             _hello hello \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; \
             printf '%s\\n' \"${COMPREPLY[@]}\"",
        )
        .arg(&script)
        .args(words);
    stdout(&mut bash).lines().map(str::to_owned).collect()
}

#[test]
fn completions_parse_in_each_shell_that_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = completions(shell);
        assert!(script.contains("broadcast"), "{shell}");
        assert!(!script.contains("exec-supervise"), "{shell}");
        assert!(!script.contains('\u{1b}'), "{shell}");
        let path = dir.path().join(shell);
        std::fs::write(&path, script).unwrap();
        // The program makes the script of a shell that is not installed as well.
        if is_installed(shell) {
            stdout(Command::new(shell).arg(check).arg(&path));
        }
    }
}

#[test]
fn bash_completes_commands_options_and_known_words() {
    let commands = offered(&["hello", ""]);
    for command in visible_commands() {
        assert!(commands.contains(&command), "{command}: {commands:?}");
    }
    assert!(!commands.contains("man"), "{commands:?}");
    assert!(offered(&["hello", "broadcast", "--dry"]).contains("--dry-run"));
    assert!(offered(&["hello", "undo", "--dry"]).contains("--dry-run"));
    assert!(offered(&["hello", "help", "ins"]).contains("install"));
    assert!(offered(&["hello", "kinds", "ng"]).contains("nginx"));
    assert!(offered(&["hello", "completions", ""]).contains("zsh"));
}

#[test]
fn the_program_and_each_command_have_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let man = dir.path().join("new/man1");
    assert_eq!(stdout(Command::new(HELLO).arg("man").arg(&man)), "");
    let pages: BTreeSet<String> = std::fs::read_dir(&man)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let commands = visible_commands();
    let mut wanted: BTreeSet<String> = commands
        .iter()
        .map(|command| format!("hello-{command}.1"))
        .collect();
    wanted.insert("hello.1".to_owned());
    assert_eq!(pages, wanted);
    for page in &pages {
        let text = std::fs::read_to_string(man.join(page)).unwrap();
        assert!(text.contains(".SH \"EXIT STATUS\"\n"), "{page}: {text}");
        let has_examples = text.contains("\n.SH EXAMPLES\n");
        assert_eq!(has_examples, page != "hello.1", "{page}");
    }
    if !has("groff") {
        return;
    }
    for page in &pages {
        let output = Command::new("groff")
            .args(["-man", "-ww", "-z", "-Tutf8"])
            .arg(man.join(page))
            .output()
            .unwrap();
        assert!(output.status.success(), "{page}");
        assert_eq!(stderr(&output), "", "{page}");
    }
}

#[test]
fn a_directory_for_manual_pages_that_cannot_be_made_is_named() {
    let output = Command::new(HELLO)
        .args(["man", "/proc/no-such-place"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.contains("cannot write /proc/no-such-place"),
        "{error}"
    );
}

/// Builds the package of a program in a directory below that of the tests, and returns its path.
fn build(name: &str, binary: &Path, more: &[&str]) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut build = Command::new(repository().join("packaging/deb"));
    build
        .args(more)
        .args(["--fast", "--binary"])
        .arg(binary)
        .arg(&out)
        .env_remove("SOURCE_DATE_EPOCH");
    PathBuf::from(stdout(&mut build).trim_end())
}

/// Returns the package of the program that is tested; none if it cannot be built here.
fn package() -> Option<&'static Path> {
    static PACKAGE: OnceLock<Option<PathBuf>> = OnceLock::new();
    if !["dpkg-deb", "dpkg-shlibdeps", "strip"].into_iter().all(has) {
        return None;
    }
    PACKAGE
        .get_or_init(|| Some(build("package", Path::new(HELLO), &[])))
        .as_deref()
}

/// Unpacks the package into a directory.
fn unpack(package: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    stdout(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(package)
            .arg(dir.path()),
    );
    dir
}

#[test]
fn the_package_says_what_it_is() {
    let Some(package) = package() else { return };
    let field = |name: &str| {
        let mut info = Command::new("dpkg-deb");
        let text = stdout(info.arg("--field").arg(package).arg(name));
        text.trim_end().to_owned()
    };
    assert_eq!(field("Package"), "hello-reload");
    assert_eq!(field("Version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(field("Conflicts"), "hello");
    assert_eq!(
        field("Architecture"),
        stdout(Command::new("dpkg").arg("--print-architecture")).trim_end()
    );
    let depends = field("Depends");
    assert!(depends.contains("libc6 (>= "), "{depends}");
    let size: u64 = field("Installed-Size").parse().unwrap();
    assert!(size > 1_000, "{size} KiB");
}

#[test]
fn the_package_holds_every_part_in_its_place_and_is_of_root() {
    let Some(package) = package() else { return };
    let contents = stdout(Command::new("dpkg-deb").arg("--contents").arg(package));
    let mut paths = BTreeSet::new();
    for line in contents.lines() {
        assert_eq!(line.split_whitespace().nth(1), Some("root/root"), "{line}");
        paths.insert(line.split(" ./").nth(1).unwrap_or_default().to_owned());
    }
    let commands = visible_commands();
    let pages = commands
        .iter()
        .map(|command| format!("usr/share/man/man1/hello-{command}.1.gz"));
    let others = [
        "etc/hello/",
        "usr/bin/hello",
        "usr/lib/systemd/system/hello-agent.service",
        "usr/lib/systemd/system/hello-armed.service",
        "usr/lib/systemd/system/hello-serve@.service",
        "usr/lib/systemd/system/hello-watch.service",
        "usr/share/bash-completion/completions/hello",
        "usr/share/doc/hello-reload/changelog.gz",
        "usr/share/doc/hello-reload/copyright",
        "usr/share/doc/hello-reload/examples/fleet.toml",
        "usr/share/doc/hello-reload/examples/hello-watch.rules.yml",
        "usr/share/doc/hello-reload/install.md",
        "usr/share/fish/vendor_completions.d/hello.fish",
        "usr/share/man/man1/hello.1.gz",
        "usr/share/zsh/vendor-completions/_hello",
    ];
    for path in pages.chain(others.map(str::to_owned)) {
        assert!(paths.contains(&path), "{path}: {contents}");
    }
}

#[test]
fn a_package_of_the_same_program_has_the_same_bytes() {
    let Some(package) = package() else { return };
    let root = unpack(package);
    // It is stripped already. The time and the place of the build differ.
    let again = build("again", &root.path().join("usr/bin/hello"), &[]);
    assert_ne!(package, again);
    let same = std::fs::read(package).unwrap() == std::fs::read(&again).unwrap();
    assert!(same, "{} {}", package.display(), again.display());
}

/// What is below a directory, without directories.
fn files_below(dir: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    let found = stdout(find.arg(dir).args(["!", "-type", "d", "-printf", "%P\n"]));
    found.lines().map(str::to_owned).collect()
}

#[test]
fn the_package_is_installed_runs_and_is_purged() {
    let Some(package) = package() else { return };
    if !runs_as_root("only root installs a package") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let dpkg = |args: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display()))
            .args(["--force-depends", "--force-bad-path", "--no-triggers"])
            .args(args);
        stdout(&mut dpkg)
    };
    for dir in ["updates", "info"] {
        std::fs::create_dir_all(root.join("var/lib/dpkg").join(dir)).unwrap();
    }
    for file in ["status", "available"] {
        std::fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    dpkg(&["--install", package.to_str().unwrap()]);
    assert_eq!(dpkg(&["--verify", "hello-reload"]), "");
    let hello = root.join("usr/bin/hello");
    assert_eq!(hello.metadata().unwrap().mode() & 0o7777, 0o755);
    let version = stdout(Command::new(&hello).arg("-V"));
    assert_eq!(version, stdout(Command::new(HELLO).arg("-V")));
    std::fs::write(root.join("etc/hello/web.toml"), "message = \"kept\"\n").unwrap();
    dpkg(&["--purge", "hello-reload"]);
    let mut left = files_below(root);
    left.retain(|path| !path.starts_with("var/lib/dpkg/") && path != "var/log/dpkg.log");
    assert_eq!(left, ["etc/hello/web.toml"]);
    let usr = root.join("usr/share/doc/hello-reload");
    assert!(!usr.exists());
}

/// Verifies a unit of an unpacked package with the program of that package.
fn verify(root: &Path, name: &str) {
    let unit = root.join("usr/lib/systemd/system").join(name);
    let text = std::fs::read_to_string(&unit).unwrap();
    let exe = root.join("usr/bin/hello");
    let text = text.replace("/usr/bin/hello", exe.to_str().unwrap());
    let here = root.join(name);
    std::fs::write(&here, text).unwrap();
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(format!("--man={}", is_installed("man")))
        .arg(&here)
        .env("MANPATH", root.join("usr/share/man"))
        .output()
        .unwrap();
    // A line that systemd ignores is a warning.
    assert_eq!(stderr(&output), "");
    assert!(output.status.success());
}

#[test]
fn systemd_ignores_no_line_of_a_unit() {
    let Some(package) = package() else { return };
    if has("systemd-analyze") {
        let root = unpack(package);
        for name in [
            "hello-serve@.service",
            "hello-watch.service",
            "hello-agent.service",
            "hello-armed.service",
        ] {
            verify(root.path(), name);
        }
    }
}

#[test]
fn the_alert_rules_are_valid_and_name_metrics_that_exist() {
    if !has("promtool") {
        return;
    }
    let rules = repository().join("packaging/hello-watch.rules.yml");
    let mut promtool = Command::new("promtool");
    stdout(promtool.args(["check", "rules"]).arg(&rules));
    let text = std::fs::read_to_string(rules).unwrap();
    let page = std::fs::read_to_string(repository().join("docs/watch.md")).unwrap();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let metrics: BTreeSet<&str> = words.filter(|w| w.starts_with("hello_watch_")).collect();
    assert!(metrics.len() > 2, "{metrics:?}");
    for metric in metrics {
        assert!(page.contains(&format!("| `{metric}` |")), "{metric}");
    }
}

/// Starts a server under the parts of the unit that `hello` meets from outside: another user without
/// capabilities, a read-only file system and `/proc` of its own, in a mount namespace.
fn confined(dir: &Path) -> Killed {
    let script = "mount --make-rslave / && mount -t proc -o hidepid=invisible proc /proc && \
        mount -o remount,bind,ro / && exec setpriv --reuid 61999 --regid 61999 --clear-groups \
        --no-new-privs --bounding-set=-all --inh-caps=-all -- \"$@\"";
    let server = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(dir.join("hello"))
        .args(["serve", "--config"])
        .arg(dir.join("web.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut server = Killed(server.unwrap());
    let mut url = String::new();
    let stdout = server.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut url).unwrap();
    assert!(url.starts_with("http://"), "{url:?}");
    server
}

#[test]
fn a_server_that_is_confined_as_by_the_unit_is_reloaded_and_proven() {
    if !runs_as_root("only root confines a server") || !has("unshare") || !has("setpriv") {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    stdout(Command::new("cp").arg(HELLO).arg(dir.join("hello")));
    write(
        &dir.join("web.toml"),
        "message = \"one\"\nlisten = \"127.0.0.1:0\"\n",
    );
    let server = confined(dir);
    let place = dir.display();
    write(
        &dir.join("fleet.toml"),
        &format!(
            "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\nuser = \"61999\"\n\
             config_under = \"{place}\"\nmatch = {{ exe = \"{place}/hello\" }}\n"
        ),
    );
    let mut broadcast = Command::new(HELLO);
    broadcast
        .args(["broadcast", "--set", "message=two", "--validate"])
        .args(["-o", "json", "--fleet"])
        .arg(dir.join("fleet.toml"))
        .arg("--state")
        .arg(dir.join("state"));
    let run = CommandResult::of(&mut broadcast).expect(0);
    let instance = &run.json["instances"][0];
    assert_eq!(instance["pid"], server.id());
    assert_eq!(instance["proof"], "exact");
    assert_eq!(instance["validated"], true);
}

#[test]
fn the_unit_is_for_the_version_of_systemd_that_is_named() {
    let Some(package) = package() else { return };
    let stripped = unpack(package);
    let stripped = stripped.path().join("usr/bin/hello");
    for (version, kind, breaks) in [
        ("252", "Type=notify\n", ""),
        ("253", "Type=notify-reload\n", "systemd (<< 253)"),
    ] {
        let package = build(version, &stripped, &["--systemd", version]);
        let root = unpack(&package);
        for name in ["hello-serve@.service", "hello-watch.service"] {
            let unit = root.path().join("usr/lib/systemd/system").join(name);
            let text = std::fs::read_to_string(unit).unwrap();
            assert!(text.contains(kind), "{version}: {text}");
            let signals = text.contains("\nExecReload=/bin/kill -HUP $MAINPID\n");
            assert_eq!(signals, version == "252", "{text}");
        }
        let mut field = Command::new("dpkg-deb");
        let field = stdout(field.arg("--field").arg(&package).arg("Breaks"));
        assert_eq!(field.trim_end(), breaks);
    }
}

#[test]
fn the_example_for_ci_passes_and_ends_its_servers() {
    if !has("jq") {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let bin = Path::new(HELLO).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = repository().join("demo/ci.sh");
    // A server that is left would keep a pipe open.
    let log = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new(&script)
        .arg("4")
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.reopen().unwrap())
        .status()
        .unwrap();
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(status.success(), "{text}");
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let wanted = temporary.path().to_str().unwrap();
    until("no server is left", || {
        std::fs::read_dir("/proc").unwrap().all(|process| {
            let line = std::fs::read(process.unwrap().path().join("cmdline"));
            !String::from_utf8_lossy(&line.unwrap_or_default()).contains(wanted)
        })
    });
    assert_eq!(
        script.metadata().unwrap().permissions().mode() & 0o111,
        0o111
    );
    let text = std::fs::read_to_string(&script).unwrap();
    assert!(text.lines().count() <= 15, "{text}");
}
