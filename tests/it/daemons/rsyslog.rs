//! rsyslog under `hello broadcast`, by the shipped kind: no signal makes it read its config.

use super::{
    case::Case,
    services::{log_line, rsyslog},
};
use crate::support::until;

#[test]
fn a_change_of_rsyslogs_config_needs_a_restart_and_is_validated() {
    let Some(rsyslog) = rsyslog() else { return };
    let (out, other) = (rsyslog.daemon.path("out"), rsyslog.daemon.path("other"));
    log_line(&rsyslog, "one");
    until("the line is in the file", || {
        std::fs::read_to_string(&out).is_ok_and(|text| text.contains("one"))
    });
    // The signal makes it close its output file until the next line.
    let fds = || {
        std::fs::read_dir(format!("/proc/{}/fd", rsyslog.daemon.pid()))
            .unwrap()
            .flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
    };
    let loads = || fds().any(|to| to == out).to_string();
    assert_eq!(loads(), "true");
    let group = format!(
        "match = {{ exe = \"rsyslogd\", args = [\"{}\"] }}",
        rsyslog.daemon.path("rsyslog.conf").display()
    );
    let case = Case {
        daemon: &rsyslog.daemon,
        kind: "rsyslog",
        file: "rsyslog.conf",
        group,
        facts: String::new(),
        loads: &loads,
    };
    case.fleet("");
    let good = case.text();
    assert_eq!(
        case.untouched(0, &[], || rsyslog.daemon.broadcast(&[]))
            .states(),
        ["unchanged"]
    );
    let changed = good.replace(out.to_str().unwrap(), other.to_str().unwrap());
    case.untouched(10, &["rsyslog.conf", "only at its start"], || {
        case.change(&changed)
    });
    case.refuses(&format!("{good}action(type=\"nonsense\")\n"), "nonsense");
    // The file is edited by hand.
    case.edit(&changed);
    case.untouched(10, &["rsyslog.conf", "only at its start"], || {
        rsyslog.daemon.broadcast(&[])
    });
    log_line(&rsyslog, "two");
    until("the line is in the old file", || {
        std::fs::read_to_string(&out).unwrap().contains("two")
    });
    assert!(!other.exists());
}
