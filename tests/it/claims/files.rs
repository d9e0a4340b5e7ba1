//! Staging on filesystems without O_TMPFILE, and processes that appear during the run.

use std::process::{Command, Stdio};

use super::server::{
    EQUALS, INCREASED, PATIENT, Server, fleet, group, groups, holds, script, set, state, text,
};
use crate::support::{CommandResult, Fleet, until};

/// Runs a command without `O_TMPFILE`, as on a filesystem that does not support it. Other flags and
/// calls work.
const WITHOUT: &str = r#"
import ctypes, os, struct, sys
nr = {"x86_64": 257, "aarch64": 56}[os.uname().machine]
tmpfile, errno = 0o20000000, 95
def op(code, k, yes=0, no=0): return struct.pack("HBBI", code, yes, no, k)
program = op(0x20, 0) + op(0x15, nr, 0, 4) + op(0x20, 32) + op(0x54, tmpfile) + op(0x15, tmpfile, 0, 1)
program += op(0x06, 0x00050000 | errno) + op(0x06, 0x7fff0000)
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure): _fields_ = [("count", ctypes.c_ushort), ("program", ctypes.c_void_p)]
filter = Filter(len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(filter), 0, 0): sys.exit(77)
if sys.argv[1] == "try":
    try: os.close(os.open(sys.argv[2], os.O_TMPFILE | os.O_RDWR))
    except OSError as e: sys.exit(0 if e.errno == errno else 78)
    sys.exit(79)
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// Returns a command of `hello` without O_TMPFILE.
fn without(fleet: &Fleet, command: &Command) -> Command {
    let mut filtered = Command::new("python3");
    filtered
        .arg(fleet.write("without.py", WITHOUT))
        .arg(command.get_program())
        .args(command.get_args());
    filtered
}

fn can_refuse(fleet: &Fleet) -> bool {
    let mut tried = Command::new("python3");
    let tried = tried
        .arg(fleet.write("without.py", WITHOUT))
        .arg("try")
        .arg(fleet.dir.path())
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        crate::support::skipped("this machine does not let O_TMPFILE be refused");
    }
    can
}

/// Returns the files beside the target that are not from the test.
fn beside(fleet: &Fleet) -> Vec<String> {
    let names = std::fs::read_dir(fleet.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".hello-")).collect()
}

#[test]
fn staging_and_rollback_work_without_o_tmpfile() {
    for (gate, code, wanted) in [("true", 0, "\"two\""), ("false", 6, "\"one\"")] {
        let (fleet, servers) = fleet(
            &[("Good", 0)],
            &format!("{EQUALS}[group.rollout]\ngate = [\"{gate}\"]"),
        );
        if !can_refuse(&fleet) {
            return;
        }
        let result = CommandResult::of(&mut without(
            &fleet,
            fleet
                .command(&["-o", "json"])
                .args(["--set", "message=two", "--timeout", "10s"]),
        ))
        .expect(code);
        assert!(fleet.text().contains(wanted), "{}", fleet.text());
        assert_eq!(
            beside(&fleet),
            Vec::<String>::new(),
            "nothing is left beside it"
        );
        holds(&result, &servers);
    }
}

#[test]
fn named_files_staged_by_a_killed_run_are_removed_by_the_next_run() {
    let fleet = Fleet::start(0);
    if !can_refuse(&fleet) {
        return;
    }
    let servers = [Server::start(&fleet, "Good", 0, "web.toml")];
    let (there, dir) = (fleet.path("validates"), fleet.dir.path().display());
    // Files that it writes are discarded, except below the root of its parent.
    let validator = script(
        &fleet,
        "validator",
        &format!("touch /proc/$PPID/root'{dir}/validates'; exec sleep 30"),
    );
    groups(
        &fleet,
        &[group(
            &fleet,
            "g",
            "web.toml",
            &format!("validate = [\"{validator}\"]\n{EQUALS}"),
        )],
    );
    let mut run = without(&fleet, &fleet.command(&["-q", "--set", "message=staged"]))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it validates", || {
        there.exists() || run.try_wait().unwrap().is_some()
    });
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(beside(&fleet).len(), 1, "it has staged one file");
    groups(&fleet, &[group(&fleet, "g", "web.toml", EQUALS)]);
    let result = set(&fleet, "two", PATIENT).expect(0);
    assert_eq!(
        (beside(&fleet), state(&result, &servers[0])),
        (Vec::new(), "confirmed")
    );
}

#[test]
fn a_process_that_appears_during_the_last_gate_is_in_the_report() {
    for mode in ["Good", "Silent"] {
        let (fleet, mut servers) = fleet(&[("Good", 0)], "");
        let (dir, gate) = (fleet.dir.path().display(), fleet.path("gate"));
        script(
            &fleet,
            "gate",
            &format!("touch '{dir}/go'; while [ ! -e '{dir}/went' ]; do sleep 0.02; done"),
        );
        groups(
            &fleet,
            &[group(
                &fleet,
                "g",
                "web.toml",
                &format!("{EQUALS}[group.rollout]\ngate = [\"{}\"]", text(&gate)),
            )],
        );
        let (result, new) = std::thread::scope(|scope| {
            let comes = scope.spawn(|| {
                until("the gate runs", || fleet.path("go").exists());
                let new = Server::start(&fleet, mode, 0, "web.toml");
                std::fs::write(fleet.path("went"), "").unwrap();
                new
            });
            (set(&fleet, "two", PATIENT), comes.join().unwrap())
        });
        assert_eq!(
            (result.code, state(&result, &new)),
            (0, "confirmed"),
            "{mode}: {:#}",
            result.json
        );
        servers.push(new);
        holds(&result, &servers);
    }
}

#[test]
fn a_process_that_starts_after_the_install_is_not_proven_by_its_start() {
    for facts in [INCREASED, "confirm = []\nunproven = \"accept\"\n"] {
        let (fleet, mut servers) = fleet(&[("Good", 0)], "");
        let (dir, gate) = (fleet.dir.path().display(), fleet.path("gate"));
        let replace = "cp web.toml other; echo '# of another writer' >>other; mv other web.toml";
        script(
            &fleet,
            "gate",
            &format!("cd '{dir}'; {replace}; touch go; while [ ! -e went ]; do sleep 0.02; done"),
        );
        groups(
            &fleet,
            &[group(
                &fleet,
                "g",
                "web.toml",
                &format!("{facts}[group.rollout]\ngate = [\"{}\"]", text(&gate)),
            )],
        );
        let (result, new) = std::thread::scope(|scope| {
            let comes = scope.spawn(|| {
                until("the gate runs", || fleet.path("go").exists());
                let new = Server::start(&fleet, "Good", 0, "web.toml");
                std::fs::write(fleet.path("went"), "").unwrap();
                new
            });
            (set(&fleet, "two", &[]), comes.join().unwrap())
        });
        assert_eq!(result.code, 7, "{facts}: {:#}", result.json);
        assert!(
            ["timed_out", "revert_failed"].contains(&state(&result, &new)),
            "{facts}: {:#}",
            result.json
        );
        servers.push(new);
        holds(&result, &servers);
    }
}
