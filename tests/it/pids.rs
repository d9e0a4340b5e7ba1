//! Pid reuse: a pid that another program got between survey and signal is never signalled.

use std::{os::unix::fs::PermissionsExt, process::Command};

use crate::support::Fleet;

/// Runs in a new pid namespace, where the next pid can be chosen. The validator runs after the
/// survey. It ends one server and starts `sleep` until `sleep` has exactly that pid. SIGHUP would
/// end `sleep`, so a living `sleep` proves that no signal came.
const SCRIPT: &str = r#"
set -eu
D=$1; H=$2
start() { "$H" serve --config "$D/web.toml" >"$D/url.$1" 2>/dev/null & }
start 1; KEPT=$!
(start 2; echo $! >"$D/victim")
VICTIM=$(cat "$D/victim")
# A validator ends whatever it starts, so another process does this when it is asked.
(
  while [ ! -e "$D/go" ]; do sleep 0.02; done
  kill -KILL $VICTIM
  for _ in $(seq 600); do [ -e /proc/$VICTIM ] || break; sleep 0.01; done
  for _ in $(seq 200); do
    echo $((VICTIM - 1)) >/proc/sys/kernel/ns_last_pid
    sleep 120 >/dev/null 2>&1 &
    [ $! = $VICTIM ] && break
    kill -KILL $!
  done
  touch "$D/went"
) &
for n in 1 2; do for _ in $(seq 600); do [ -s "$D/url.$n" ] && break; sleep 0.05; done; done
cat >"$D/validator" <<SH
#!/bin/sh
touch "/proc/\$PPID/root$D/go"
while [ ! -e "/proc/\$PPID/root$D/went" ]; do sleep 0.02; done
"$H" check "\$1"
SH
chmod 755 "$D/validator"
code=0
"$H" broadcast --fleet "$D/fleet.toml" --state "$D/state" -o json --set message=x >"$D/said.json" 2>"$D/said" || code=$?
echo "code $code"
echo "comm $(cat /proc/$VICTIM/comm)"
echo "victim $VICTIM"
echo "body $(curl -s "$(cat "$D/url.1")")"
kill -KILL $VICTIM $KEPT
"#;

#[test]
fn a_pid_that_was_given_to_another_program_is_never_signalled() {
    let fleet = Fleet::start(0);
    let before = fleet.text();
    let script = fleet.write("script", SCRIPT);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write(
        "fleet.toml",
        &format!(
            "{group}validate = [\"{}\", \"{{candidate}}\"]\n",
            fleet.path("validator").display()
        ),
    );
    // The first process of the namespace is a shell that waits. It adopts every orphan.
    let wrapped = "sh \"$0\" \"$1\" \"$2\"; exit $?";
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "sh", "-c", wrapped])
        .arg(&script)
        .arg(fleet.dir.path())
        .arg(fleet.exe())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if stderr.contains("unshare failed") {
        crate::support::skipped("no pid namespace is to be had");
        return;
    }
    let result = std::fs::read_to_string(fleet.path("said.json")).unwrap_or_default();
    let value = |key: &str| {
        stdout
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix(' '))
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("{stdout}\n{stderr}\n{result}"))
    };
    assert_eq!(
        value("comm"),
        "sleep",
        "it has the pid and lives\n{stdout}\n{result}"
    );
    assert_eq!(
        (value("code").as_str(), value("body").as_str()),
        ("7", "one"),
        "{result}"
    );
    let json: serde_json::Value = serde_json::from_str(&result).unwrap();
    let of = |pid: &str| {
        json["instances"]
            .as_array()
            .unwrap()
            .iter()
            .find(|i| i["pid"] == pid.parse::<i32>().unwrap())
            .unwrap()["outcome"]
            .clone()
    };
    assert_eq!(of(&value("victim")), "died", "{json:#}");
    assert_eq!(
        (json["counts"]["reverted"].clone(), fleet.text()),
        (1.into(), before)
    );
}
