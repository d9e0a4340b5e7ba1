//! The executable of an instance in a container never runs outside of the container.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    ground::{Ground, Process, as_alice, start, tries, uid},
    notes::Notes,
};
use crate::support::{CommandResult, until};

/// Writes a group of the program `name`, validated by its own executable with `check`, for each
/// instance.
fn group(ground: &Ground, name: &str, check: &str, more: &str) {
    let argv = format!("validate = [\"{{exe}}\", \"{check}\", \"{{pid}}\"]");
    ground.fleet.write("fleet.toml", &format!("version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"300ms\"\nspeaks = \"none\"\nconfirm = []\nmatch = {{ exe = \"{name}\" }}\n{argv}\n{more}\n"), );
}

/// Bash scripts: the instance, which handles the signal, and the report about where its executable
/// runs.
const INSTANCE: &str = "trap : HUP\necho begun\nwhile :; do read -r -t 1 </proc/self/fd/9; done\n";
const CHECK: &str = "echo \"mnt=$(readlink /proc/self/ns/mnt) root=$(echo /*) uid=$EUID\"\nwhile IFS= read -r line; do case $line in CapBnd:*|CapEff:*) echo \"$line\"; esac; done </proc/self/status\nexit 1\n";

/// Returns the namespace of the test itself.
fn host() -> String {
    std::fs::read_link("/proc/self/ns/mnt")
        .unwrap()
        .display()
        .to_string()
}

/// Starts a process of a container. Its first line must be `begun`.
fn contained(command: &mut Command) -> Option<Process> {
    let (process, line) = start(command.stdin(Stdio::null()).stderr(Stdio::null()));
    if line != "begun" {
        crate::support::skipped(&format!("no such container is to be had: {line}"));
        return None;
    }
    Some(process)
}

fn wrapped(command: &mut Command, wrapper: &[&str], exe: &Path, script: &Path) -> Option<Process> {
    let fifo = script.with_extension("fifo");
    if !fifo.exists() {
        assert!(
            Command::new("mkfifo")
                .arg("-m")
                .arg("666")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
    }
    let start = format!(
        "{} '{}' '{}' 9<>'{}' || echo none",
        wrapper.join(" "),
        exe.display(),
        script.display(),
        fifo.display()
    );
    contained(command.args(["-c", &start]))
}

/// Returns the rejection and its output. `None` if the validator did not run, which must be
/// reported.
fn answer(result: &CommandResult) -> Option<String> {
    let text = format!("{}{}", result.stderr, result.json);
    if text.contains("refused it (exit status") {
        return Some(text);
    }
    assert!(
        text.contains("could not be run")
            || text.contains("nvalidated")
            || text.contains("own mount"),
        "{text}"
    );
    None
}

#[test]
fn a_container_of_another_user_is_never_validated_outside_of_its_namespaces() {
    let Some(ground) = Ground::new() else { return };
    let (exe, config) = (
        ground.alice("instance"),
        ground.file("live", "one\n", 0o644),
    );
    assert!(
        Command::new("cp")
            .arg("/bin/bash")
            .arg(&exe)
            .status()
            .unwrap()
            .success()
    );
    let script = ground.file("instance.sh", INSTANCE, 0o644);
    let notes = Notes::new();
    let check = ground.program(
        "check",
        &format!(
            "#!/bin/bash\n{{ readlink /proc/self/ns/mnt; id -u; }} >{}\n",
            notes.sink()
        ),
    );
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
    ];
    let Some(_process) = wrapped(&mut as_alice("sh"), &wrapper, &exe, &script) else {
        return;
    };
    for user in [format!("user = \"{}\"\n", uid()), String::new()] {
        group(
            &ground,
            &exe.display().to_string(),
            &check,
            &format!("{user}config = \"{}\"", config.display()),
        );
        for at in 0..tries(4) {
            let new = ground.fleet.write("new", &format!("{at}\n"));
            let result = match at % 4 {
                0 | 1 => ground.broadcast(&["--dry-run", "--config", new.to_str().unwrap()]),
                2 => ground.run_json("status", ""),
                _ => ground.run_json("doctor", ""),
            };
            if at == 0 && !user.is_empty() {
                assert!(
                    format!("{}{}", result.stderr, result.json).contains("user namespace"),
                    "{}",
                    result.stderr
                );
            }
        }
    }
    assert_eq!(
        notes.text(),
        "",
        "its program ran in the namespaces of the host"
    );
}

#[test]
fn a_container_of_root_is_validated_inside_or_not_at_all() {
    let Some(ground) = Ground::new() else { return };
    let exe = ground.fleet.path("instance");
    assert!(
        Command::new("cp")
            .arg("/bin/bash")
            .arg(&exe)
            .status()
            .unwrap()
            .success()
    );
    let (script, check, config) = (
        ground.fleet.write("instance.sh", INSTANCE),
        ground.program("check", CHECK),
        ground.fleet.write("live", "one\n"),
    );
    let name = exe.display().to_string();
    // Private mounts and pids, or only a smaller bounding set.
    for (wrapper, is_bound) in [
        (
            &["unshare", "--mount", "--pid", "--fork", "--mount-proc"][..],
            false,
        ),
        (
            &[
                "setpriv",
                "--bounding-set",
                "-sys_admin,-sys_ptrace,-setuid",
                "--inh-caps",
                "-all",
            ],
            true,
        ),
    ] {
        let Some(process) = wrapped(Command::new("sh").process_group(), wrapper, &exe, &script)
        else {
            return;
        };
        group(
            &ground,
            &name,
            &check,
            &format!("config = \"{}\"", config.display()),
        );
        let mut asked = 0;
        for at in 0..tries(3) {
            let new = ground.fleet.write("new", &format!("{at}\n"));
            let result = if at % 3 == 2 {
                ground.run_json("status", "")
            } else {
                ground.broadcast(&["--dry-run", "--config", new.to_str().unwrap()])
            };
            let Some(words) = answer(&result) else {
                continue;
            };
            asked += 1;
            if is_bound {
                let set = words.split("CapBnd:").nth(1).and_then(|rest| {
                    u64::from_str_radix(&rest.trim_start_matches("\\t").trim()[..16], 16).ok()
                });
                assert!(
                    set.is_some_and(|set| set & (1 << 21 | 1 << 19 | 1 << 7) == 0),
                    "it has more than its instance: {words}"
                );
            } else {
                assert!(
                    words.contains("mnt=mnt:"),
                    "it ran in the mount namespace of the host: {words}"
                );
                assert!(
                    !words.contains(&host()),
                    "it ran in the mount namespace of the host: {words}"
                );
            }
        }
        println!("{wrapper:?}: asked inside {asked} times");
        drop(process);
    }
}

/// Creates a root directory with bash under this name, and nothing else of the host.
fn jail(ground: &Ground, name: &str) -> PathBuf {
    let jail = ground.fleet.path("jail");
    let script = "set -e; mkdir -p \"$0/bin\" \"$0/proc\" \"$0/dev\" \"$0$2\"; cp /bin/bash \"$0/bin/$1\"; : >\"$0/jailed\"\n\
                  for lib in $(ldd /bin/bash | grep -o '/[^ ]*'); do mkdir -p \"$0$(dirname \"$lib\")\"; cp \"$lib\" \"$0$lib\"; done";
    assert!(
        Command::new("sh")
            .args(["-c", script])
            .arg(&jail)
            .arg(name)
            .arg(ground.fleet.dir.path())
            .status()
            .unwrap()
            .success()
    );
    jail
}

#[test]
fn a_process_with_another_root_directory_is_validated_there_or_not_at_all() {
    let Some(ground) = Ground::new() else { return };
    let name = format!("{}-jail", ground.fleet.exe().file_name().unwrap().display());
    let jail = jail(&ground, &name);
    std::fs::write(
        jail.join("instance.sh"),
        "trap : HUP\necho begun\nwhile :; do read -r -t 1 <&9; done\n",
    )
    .unwrap();
    // The fleet file has the same path there, and nothing else does.
    let check = ground.program(
        "check",
        "if [ -e /jailed ]; then echo in: jail; else echo in: host; fi; exit 1\n",
    );
    let (fifo, config) = (
        ground.fleet.path("fifo"),
        ground.fleet.write("live", "one\n"),
    );
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let (dir, jail) = (ground.fleet.dir.path().display(), jail.display());
    let start = format!(
        "mount --bind '{dir}' '{jail}{dir}' && exec chroot '{jail}' '/bin/{name}' /instance.sh 9<>'{}' || echo none",
        fifo.display()
    );
    let Some(_process) = contained(
        Command::new("unshare")
            .process_group()
            .args(["--mount", "sh", "-c", &start]),
    ) else {
        return;
    };
    group(
        &ground,
        &name,
        &check,
        &format!("config = \"{}\"", config.display()),
    );
    let mut asked = 0;
    for at in 0..tries(3) {
        let new = ground.fleet.write("new", &format!("{at}\n"));
        let result = if at % 3 == 2 {
            ground.run_json("status", "")
        } else {
            ground.broadcast(&["--dry-run", "--config", new.to_str().unwrap()])
        };
        let text = format!("{}{}", result.stderr, result.json);
        assert!(
            !text.contains("in: host"),
            "its program ran below the root directory of the host: {text}"
        );
        asked += usize::from(text.contains("in: jail"));
    }
    println!("asked below its root directory {asked} times");
    assert!(asked > 0, "it was never asked");
}

/// A separate process group, so that all of it can be ended.
trait Grouped {
    fn process_group(&mut self) -> &mut Self;
}

impl Grouped for Command {
    fn process_group(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

#[test]
fn nothing_can_write_to_the_program_that_enters_a_container() {
    let Some(ground) = Ground::new() else { return };
    let exe = ground.fleet.path("instance");
    assert!(
        Command::new("cp")
            .arg("/bin/bash")
            .arg(&exe)
            .status()
            .unwrap()
            .success()
    );
    let (config, there) = (
        ground.fleet.write("live", "one\n"),
        ground.fleet.path("there"),
    );
    let before = ground.fleet.exe().metadata().unwrap();
    // A process of the container opens the executable of each new process there for writing.
    let script = ground.fleet.write("instance.sh", &format!("trap : HUP\necho begun\nwhile :; do for p in /proc/[0-9]*; do n=${{p#/proc/}}; [ $n = 1 ] || [ $n = $$ ] || [ $n = $BASHPID ] || {{ printf . >>'{0}'; \
             case $(readlink $p/exe) in *memfd*|*hello*) {{ printf x >>$p/exe; }} 2>/dev/null && echo written >>'{0}'; esac; }}; done; done\n", there.display()), );
    let wrapper = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"];
    let Some(_process) = wrapped(Command::new("sh").process_group(), &wrapper, &exe, &script)
    else {
        return;
    };
    group(
        &ground,
        &exe.display().to_string(),
        "/dev/null",
        &format!("config = \"{}\"", config.display()),
    );
    for at in 0..tries(5) {
        let new = ground.fleet.write("new", &format!("{at}\n"));
        ground.broadcast(&["--dry-run", "--config", new.to_str().unwrap()]);
    }
    until("it has looked", || there.exists());
    assert!(!std::fs::read_to_string(&there).unwrap().contains("written"));
    let after = ground.fleet.exe().metadata().unwrap();
    assert_eq!(
        (after.len(), after.mtime(), after.mtime_nsec()),
        (before.len(), before.mtime(), before.mtime_nsec())
    );
    assert_eq!(after.permissions().mode(), before.permissions().mode());
}
