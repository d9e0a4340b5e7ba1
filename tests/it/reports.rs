//! The reports for a CI system: JUnit, and the annotations and step summary of GitHub Actions.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::support::{Fleet, skipped};

/// A config that is refused, with text that XML, Markdown and workflow commands could obey.
const HOSTILE: &str = "message = 3 # </failure> & \"q\" | `x` ::error::no\n";

/// An assertion that never holds.
const NEVER: &str = "[[group.confirm]]\nexec = [\"echo\", \"a\"]\nequals = \"b\"\n";

fn broadcast(fleet: &Fleet, args: &[&str]) -> Output {
    let mut command = fleet.command(args);
    command.env("GITHUB_ACTIONS", "false");
    command.output().unwrap()
}

fn in_github(fleet: &Fleet, args: &[&str]) -> Output {
    let mut command = fleet.command(args);
    command
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", fleet.path("summary.md"));
    command.output().unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Checks a report against what the readers of JUnit agree on; false if the tool is missing.
fn is_checked(report: &Path) -> bool {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/junit.xsd");
    let checked = Command::new("xmllint")
        .args(["--noout", "--schema"])
        .arg(schema)
        .arg(report)
        .output();
    let Ok(checked) = checked else {
        skipped("xmllint is missing");
        return false;
    };
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}\n{}", read(report));
    true
}

/// Runs a broadcast with a JUnit report, and returns the report.
fn junit(fleet: &Fleet, args: &[&str], exit: i32) -> String {
    let report = fleet.path("junit.xml");
    let option = format!("--junit={}", report.display());
    let output = broadcast(fleet, &[args, &[option.as_str()]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    if !is_checked(&report) {
        return String::new();
    }
    read(&report)
}

#[test]
fn a_converged_run_is_a_report_without_failures() {
    let fleet = Fleet::start(2);
    let xml = junit(&fleet, &["--set", "message=two"], 0);
    assert_eq!(xml.matches("<testcase ").count(), 3, "{xml}");
    assert!(!xml.contains("<failure"), "{xml}");
}

#[test]
fn a_run_that_touched_nothing_is_a_failure_of_its_verdict() {
    let fleet = Fleet::start(1);
    let bad = fleet.write("bad.toml", HOSTILE);
    let xml = junit(&fleet, &["--config", bad.to_str().unwrap()], 4);
    assert_eq!(xml.matches("<failure ").count(), 1, "{xml}");
    assert!(xml.contains("type=\"invalid (exit 4)\""), "{xml}");
    assert!(xml.contains("&lt;/failure&gt;"), "{xml}");
}

#[test]
fn an_instance_that_is_not_proven_is_a_failure_with_its_reason() {
    let fleet = Fleet::start(2);
    let text = read(&fleet.path("fleet.toml"));
    fleet.write("fleet.toml", &format!("{text}{NEVER}"));
    let xml = junit(&fleet, &["--set", "message=two", "--timeout", "1s"], 7);
    assert!(xml.contains("type=\"mixed (exit 7)\""), "{xml}");
    assert!(xml.contains("type=\"revert failed\""), "{xml}");
    assert!(
        xml.contains("<skipped "),
        "the second was not touched: {xml}"
    );
}

#[test]
fn a_report_that_cannot_be_written_ends_the_command_before_anything_is_touched() {
    let fleet = Fleet::start(1);
    let output = broadcast(
        &fleet,
        &["--set", "message=two", "--junit", "/no/such/file"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fleet.bodies(), ["one"]);
}

#[test]
fn a_report_is_not_written_through_a_symbolic_link() {
    let fleet = Fleet::start(1);
    let victim = fleet.write("victim", "kept");
    std::os::unix::fs::symlink(&victim, fleet.path("junit.xml")).unwrap();
    let link = fleet.path("junit.xml");
    let args = ["--set", "message=two", "--junit", link.to_str().unwrap()];
    assert_eq!(broadcast(&fleet, &args).status.code(), Some(2));
    assert_eq!(read(&victim), "kept");
}

#[test]
fn a_bad_fleet_leaves_no_report_of_an_earlier_run() {
    let fleet = Fleet::start(1);
    let report = fleet.write("junit.xml", "<testsuites/>");
    fleet.write("fleet.toml", "version = 1\nodd = 2\n");
    let args = ["--set", "message=two", "--junit", report.to_str().unwrap()];
    assert_eq!(broadcast(&fleet, &args).status.code(), Some(2));
    assert_eq!(read(&report), "");
}

#[test]
fn a_report_on_a_full_disk_is_no_success() {
    let fleet = Fleet::start(1);
    let output = broadcast(&fleet, &["--set", "message=two", "--junit", "/dev/full"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("could not be written to `/dev/full`"),
        "{stderr}"
    );
}

#[test]
fn a_job_of_github_gets_one_notice_for_a_converged_run() {
    let fleet = Fleet::start(1);
    let output = in_github(&fleet, &["--set", "message=two"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let commands: Vec<&str> = stderr.lines().filter(|l| l.starts_with("::")).collect();
    let title = "::notice title=hello broadcast%3A converged::1 instance: converged (1 confirmed)";
    assert_eq!(commands, [title]);
    assert!(output.stdout.is_empty());
}

#[test]
fn text_of_others_is_no_workflow_command_and_no_markup() {
    let fleet = Fleet::start(1);
    let bad = fleet.write("bad.toml", HOSTILE);
    let output = in_github(&fleet, &["--config", bad.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let commands: Vec<&str> = stderr
        .lines()
        .filter(|line| line.trim_start().starts_with("::"))
        .collect();
    assert_eq!(commands.len(), 1, "{stderr}");
    assert!(commands[0].starts_with("::error title=hello broadcast%3A invalid::"));
    let summary = read(&fleet.path("summary.md"));
    assert!(summary.starts_with("## hello broadcast: invalid (exit 4)\n"));
    let hostile = summary.lines().find(|line| line.contains("</failure>"));
    assert!(
        hostile.is_some_and(|line| line.starts_with("    ")),
        "{summary}"
    );
}

#[test]
fn the_step_summary_is_appended_with_a_row_for_each_failure() {
    let fleet = Fleet::start(1);
    let text = read(&fleet.path("fleet.toml"));
    fleet.write("fleet.toml", &format!("{text}{NEVER}"));
    fleet.write("summary.md", "before\n");
    in_github(&fleet, &["--set", "message=two", "--timeout", "1s"]);
    let summary = read(&fleet.path("summary.md"));
    assert!(summary.starts_with("before\n## hello broadcast: mixed (exit 7)\n"));
    let row = format!("| web | {} |", fleet.pid(0));
    assert!(summary.contains(&row), "{summary}");
    assert!(summary.contains("    hello resume "), "{summary}");
}
