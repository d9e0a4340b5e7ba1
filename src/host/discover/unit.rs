//! The main process of a systemd unit.

use std::{path::Path, time::Duration};

use crate::host::exec::query;

/// Longest time for one answer of `systemctl`.
const LIMIT: Duration = Duration::from_secs(2);

/// Returns the main process of a unit; none without a manager, such a unit, or such a process.
pub(super) async fn main_pid(unit: &str) -> Option<i32> {
    let systemctl = ["/usr/bin/systemctl", "/bin/systemctl"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists())?;
    main_pid_by(systemctl, unit).await
}

async fn main_pid_by(systemctl: &Path, unit: &str) -> Option<i32> {
    let argv = [
        &systemctl.to_string_lossy(),
        "show",
        "--property=MainPID",
        "--value",
        "--",
        unit,
    ]
    .map(str::to_owned);
    String::from_utf8(query(&argv, LIMIT).await?)
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn only_a_number_in_time_is_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        // Its arguments are what systemctl takes; the unit says what is answered.
        let script = "#!/bin/sh\n[ \"$1 $2 $3 $4\" = 'show --property=MainPID --value --' ] || \
                      exit 9\nexport PATH=/usr/bin:/bin\neval \"$5\"\n";
        let systemctl = dir.path().join("systemctl");
        // Written by another process: a descriptor that is open for writing here could be inherited
        // by a child of a parallel test.
        let mut sh = std::process::Command::new("sh");
        assert!(
            sh.args(["-c", "printf %s \"$1\" > \"$0\""])
                .arg(&systemctl)
                .arg(script)
                .status()
                .unwrap()
                .success()
        );
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        for (says, pid) in [
            ("echo 4711", Some(4711)),
            ("echo 0", None),
            ("echo 1; echo 2", None),
            ("echo 4711; exit 1", None),
            ("exec sleep 60", None),
        ] {
            assert_eq!(main_pid_by(&systemctl, says).await, pid, "{says}");
        }
        assert_eq!(main_pid_by(&dir.path().join("none"), "x").await, None);
    }
}
