//! `hello status` and `hello doctor` over hosts: each is a folder with servers and a fleet file of
//! its own.

use serde_json::Value;

use super::Testbed;
use crate::support::{CommandEnd, Fleet, run_to_end, write};

struct Hosts {
    testbed: Testbed,
    fleets: Vec<Fleet>,
}

impl Hosts {
    /// Starts hosts `h0`, `h1`, .. with this many servers each.
    fn start(servers: &[usize]) -> Self {
        let hosts = Self {
            testbed: Testbed::new(""),
            fleets: servers.iter().map(|count| Fleet::start(*count)).collect(),
        };
        hosts.write("");
        hosts
    }

    /// Writes the fleet file of the coordinator, with further entries in its list.
    fn write(&self, more: &str) {
        let entries: Vec<String> = self
            .fleets
            .iter()
            .enumerate()
            .map(|(n, fleet)| {
                let (file, state) = (fleet.path("fleet.toml"), fleet.path("state"));
                format!("{{ name = \"h{n}\", file = {file:?}, state = {state:?} }}")
            })
            .collect();
        let list = entries.join(", ");
        self.testbed.fleet(&format!(
            "list = [{list}{more}]\nconnect = [{:?}, \"agent\", \"--stdio\", \"--fleet\", \
             \"{{file}}\", \"--state\", \"{{state}}\"]",
            env!("CARGO_BIN_EXE_hello")
        ));
    }

    fn status(&self, args: &[&str]) -> CommandEnd {
        let args = [&["status", "-o", "json"], args].concat();
        run_to_end(&mut self.testbed.command(&args))
    }
}

fn column(rows: &Value, key: &str) -> Vec<String> {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[key].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_instance_of_every_host_has_a_row_with_its_host() {
    let hosts = Hosts::start(&[2, 1]);
    let end = hosts.status(&[]);
    assert_eq!(end.code, Some(0), "{:#}", end.json);
    assert_eq!(column(&end.json["instances"], "host"), ["h0", "h0", "h1"]);
    assert_eq!(column(&end.json["groups"], "host"), ["h0", "h1"]);
}

#[test]
fn a_fault_of_one_host_is_named_with_its_host() {
    let hosts = Hosts::start(&[1, 1]);
    hosts.fleets[1].write("web.toml", "message = \"later\"\n");
    let end = hosts.status(&[]);
    assert_eq!(end.code, Some(7), "{:#}", end.json);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(reason.starts_with("h1: "), "{reason}");
    assert_eq!(end.json["instances"][0]["faults"], serde_json::json!([]));
    assert_ne!(end.json["instances"][1]["faults"], serde_json::json!([]));
}

#[test]
fn a_host_without_an_answer_hides_no_other() {
    let hosts = Hosts::start(&[1]);
    hosts.write(", { name = \"away\", file = \"x\" }");
    let end = hosts.status(&[]);
    // It has no label `state`, so there is no command that connects.
    assert_eq!(end.code, Some(11), "{:#}", end.json);
    assert_eq!(column(&end.json["instances"], "host"), ["h0"]);
    assert_eq!(column(&end.json["hosts"], "host"), ["away"]);
    assert_eq!(hosts.status(&["--except", "away"]).code, Some(0));
    assert_eq!(hosts.status(&["--on", "nothing"]).code, Some(3));
}

#[test]
fn a_host_without_the_group_is_no_part_and_a_group_of_no_host_is_refused() {
    let hosts = Hosts::start(&[1, 1]);
    let own = hosts.fleets[1].path("fleet.toml");
    let text = std::fs::read_to_string(&own).unwrap();
    write(&own, &text.replace("name = \"web\"", "name = \"other\""));
    let end = hosts.status(&["web"]);
    assert_eq!(end.code, Some(0), "{:#}", end.json);
    assert_eq!(column(&end.json["instances"], "host"), ["h0"]);
    let end = hosts.status(&["web", "other"]);
    assert_eq!(column(&end.json["instances"], "host"), ["h0", "h1"]);
    let end = hosts.status(&["web", "wbe"]);
    assert_eq!(end.code, Some(2), "{:#}", end.json);
    let reason = end.json["reason"].as_str().unwrap();
    assert!(reason.contains("no host has the group `wbe`"), "{reason}");
}

#[test]
fn an_open_run_is_named_with_its_host() {
    let hosts = Hosts::start(&[1, 1]);
    let fleet = &hosts.fleets[0];
    let own = fleet.path("fleet.toml");
    let text = std::fs::read_to_string(&own).unwrap();
    let never = "[[group.confirm]]\nexec = [\"echo\", \"a\"]\nequals = \"b\"\n";
    write(&own, &format!("{text}{never}"));
    fleet
        .broadcast(&["--set", "message=no", "--timeout", "1s"])
        .expect(7);
    write(&own, &text);
    let end = hosts.status(&[]);
    assert_eq!(end.code, Some(7), "{:#}", end.json);
    assert_eq!(column(&end.json["open"], "host"), ["h0"]);
}

#[test]
fn many_instances_share_a_row_on_the_screen() {
    let hosts = Hosts::start(&[22]);
    let output = hosts.testbed.command(&["status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].contains("and 12 more"), "{text}");
    assert!(
        lines[2].starts_with("1 host: 22 instances: 22 ok"),
        "{text}"
    );
}

#[test]
fn a_selection_without_hosts_is_refused() {
    let fleet = Fleet::start(0);
    let end = run_to_end(fleet.read_only("status").args(["--on", "a"]));
    assert_eq!(end.code, Some(2), "{}", end.stderr);
}

#[test]
fn a_process_of_a_host_is_examined_there() {
    let hosts = Hosts::start(&[1, 1]);
    let pid = hosts.fleets[1].pid(0);
    let run = |subject: &str| {
        let args = ["doctor", subject, "-o", "json"];
        run_to_end(&mut hosts.testbed.command(&args))
    };
    let end = run(&format!("h1:{pid}"));
    assert_eq!(end.code, Some(0), "{:#}", end.json);
    assert_eq!(column(&end.json["processes"], "host"), ["h1"]);
    assert_eq!(end.json["processes"][0]["pid"], pid);
    assert_eq!(run(&format!("h9:{pid}")).code, Some(3));
    assert_eq!(run(&pid.to_string()).code, Some(2), "the host is missing");
    let end = run("web");
    assert_eq!(column(&end.json["processes"], "host"), ["h0", "h1"]);
}

#[test]
fn the_group_of_a_process_of_a_host_is_printed_for_the_file_of_that_host() {
    let hosts = Hosts::start(&[1]);
    let mut sleep = std::process::Command::new("sleep");
    let sleep = crate::support::Killed(sleep.arg("600").spawn().unwrap());
    let subject = format!("h0:{}", sleep.id());
    let mut doctor = hosts.testbed.command(&["doctor", &subject, "--group"]);
    let output = doctor.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("\n[[group]]\nname = \"sleep\""), "{text}");
}
