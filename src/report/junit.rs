//! A run as JUnit XML: a test case for the verdict, and one for each instance.
//!
//! The document is valid for the schema of Ant and for that of Jenkins.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{HostReport, Summary, text::name};
use crate::{
    event::{HostState, Instance, Outcome, Verdict, process},
    screen,
};

#[derive(Debug, Serialize)]
#[serde(rename = "testsuites")]
struct Suites {
    testsuite: Vec<Suite>,
}

#[derive(Debug, Serialize)]
struct Suite {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@package")]
    package: String,
    #[serde(rename = "@id")]
    id: usize,
    #[serde(rename = "@timestamp")]
    timestamp: String,
    #[serde(rename = "@hostname")]
    hostname: String,
    #[serde(rename = "@tests")]
    tests: usize,
    #[serde(rename = "@failures")]
    failures: usize,
    #[serde(rename = "@errors")]
    errors: usize,
    #[serde(rename = "@skipped")]
    skipped: usize,
    #[serde(rename = "@time")]
    time: String,
    properties: Properties,
    testcase: Vec<Case>,
    #[serde(rename = "system-out")]
    out: String,
    #[serde(rename = "system-err")]
    err: String,
}

#[derive(Debug, Serialize)]
struct Properties {
    property: Vec<Property>,
}

#[derive(Debug, Serialize)]
struct Property {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@value")]
    value: String,
}

#[derive(Debug, Serialize)]
struct Case {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@classname")]
    class: String,
    #[serde(rename = "@time")]
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Remark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
}

/// Why a test case did not pass.
#[derive(Debug, Serialize)]
struct Remark {
    #[serde(rename = "@message")]
    message: String,
    #[serde(rename = "@type")]
    kind: String,
    /// Everything, where the message is only its first line.
    #[serde(rename = "$text", skip_serializing_if = "String::is_empty")]
    text: String,
}

/// Why a test case did not run. The schema of Ant allows no more than the message.
#[derive(Debug, Serialize)]
struct Skipped {
    #[serde(rename = "@message")]
    message: String,
}

impl Remark {
    fn new(kind: String, text: &str) -> Self {
        let message = text.lines().next().unwrap_or_default();
        Self {
            message: clean(message),
            kind,
            text: if message == text {
                String::new()
            } else {
                clean(text)
            },
        }
    }
}

/// The facts of the process that ran it, for the head of each suite.
#[derive(Debug)]
pub(super) struct Origin {
    /// Local time without a zone, as the schema of Ant wants it: `2026-01-31T12:00:00`.
    pub(super) timestamp: String,
    pub(super) hostname: String,
    /// The time of the whole run.
    pub(super) elapsed: Duration,
}

/// Returns the document.
///
/// # Errors
/// Fails if the XML cannot be written.
pub(super) fn document(summary: &Summary, origin: &Origin) -> Result<String, quick_xml::SeError> {
    let mut suites = vec![run_suite(summary, origin)];
    let faults = summary.hosts.iter().flatten();
    let faults = faults.filter(|host| !host.state.is_well());
    let cases: Vec<Case> = faults.map(host_case).collect();
    if !cases.is_empty() {
        suites.push(suite("hosts", suites.len(), cases, origin));
    }
    let mut groups: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
    for instance in &summary.instances {
        groups.entry(&instance.group).or_default().push(instance);
    }
    for (group, instances) in groups {
        let cases = instances
            .into_iter()
            .map(|instance| case(summary.verdict, instance))
            .collect();
        suites.push(suite(
            &format!("group {group}"),
            suites.len(),
            cases,
            origin,
        ));
    }
    let xml = quick_xml::se::to_string(&Suites { testsuite: suites })?;
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{xml}\n"
    ))
}

/// The suite of the run itself. It fails if the verdict is no success, also where no instance was
/// found.
fn run_suite(summary: &Summary, origin: &Origin) -> Suite {
    let failure = (summary.exit != 0).then(|| {
        let kind = format!("{} (exit {})", name(summary.verdict), summary.exit);
        Remark::new(kind, &summary.reason)
    });
    let verdict = Case {
        name: "verdict".into(),
        class: "hello.run".into(),
        time: seconds(origin.elapsed),
        failure,
        skipped: None,
    };
    let property = [
        ("run", clean(&summary.run)),
        ("verdict", name(summary.verdict)),
        ("exit", summary.exit.to_string()),
    ];
    Suite {
        properties: Properties {
            property: property
                .into_iter()
                .map(|(name, value)| Property { name, value })
                .collect(),
        },
        out: clean(&summary.reason),
        err: clean(&summary.next.join("\n")),
        ..suite("run", 0, vec![verdict], origin)
    }
}

fn suite(name: &str, id: usize, cases: Vec<Case>, origin: &Origin) -> Suite {
    let count = |is: fn(&Case) -> bool| cases.iter().filter(|case| is(case)).count();
    Suite {
        name: clean(name),
        package: "hello".into(),
        id,
        timestamp: origin.timestamp.clone(),
        hostname: origin.hostname.clone(),
        tests: cases.len(),
        failures: count(|case| case.failure.is_some()),
        errors: 0,
        skipped: count(|case| case.skipped.is_some()),
        time: seconds(origin.elapsed),
        properties: Properties {
            property: Vec::new(),
        },
        testcase: cases,
        out: String::new(),
        err: String::new(),
    }
}

/// The case of a host with a fault. It is skipped if the operator excluded the host.
fn host_case(host: &HostReport) -> Case {
    let state = name(host.state);
    let why = host.why.as_ref().unwrap_or(&state);
    let is_excluded = host.state == HostState::Excluded;
    Case {
        name: clean(host.name.as_str()),
        class: "hello.hosts".into(),
        time: seconds(Duration::ZERO),
        failure: (!is_excluded).then(|| Remark::new(state.clone(), why)),
        skipped: is_excluded.then(|| Skipped {
            message: clean(why.lines().next().unwrap_or_default()),
        }),
    }
}

/// The case of one instance. It passes if the instance is on the config that the run wanted.
fn case(verdict: Verdict, instance: &Instance) -> Case {
    let outcome = name(instance.outcome);
    let why = instance.failure.as_ref().map_or(&outcome, |f| &f.text);
    let is_well = match instance.outcome {
        Outcome::Confirmed | Outcome::Unchanged => true,
        // Its group accepts an instance that nothing proves.
        Outcome::Unconfirmed => verdict == Verdict::Converged,
        _ => false,
    };
    let is_untouched = instance.outcome == Outcome::Untouched;
    let endpoint = match instance.endpoint.as_str() {
        "" => String::new(),
        endpoint => format!(" {endpoint}"),
    };
    let process = process(&instance.host, instance.pid);
    Case {
        name: clean(&format!("{process}{endpoint}")),
        class: clean(&format!("hello.{}", instance.group)),
        time: seconds(Duration::from_micros(instance.took_us.unwrap_or(0))),
        failure: (!is_well && !is_untouched).then(|| Remark::new(outcome.clone(), why)),
        skipped: is_untouched.then(|| Skipped {
            message: clean(why.lines().next().unwrap_or_default()),
        }),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}

/// Returns `text` with characters alone that XML 1.0 allows.
fn clean(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(screen::line).collect();
    lines.join("\n").replace(['\u{fffe}', '\u{ffff}'], "")
}
