//! Groups of hosts whose instances a command makes reload.

use serde_json::Value;

use super::bed::{Bed, outcomes};

/// Writes `reload_by` into the group of a host.
fn reload_by(bed: &Bed, host: usize, argv: &str) {
    let own = bed.hosts[host].path("fleet.toml");
    let text = std::fs::read_to_string(own).unwrap();
    let with = format!("[[group]]\nreload_by = {argv}");
    let text = text.replacen("[[group]]", &with, 1);
    bed.hosts[host].write("fleet.toml", &text);
}

/// Returns the instances of a host.
fn instances<'a>(json: &'a Value, host: &str) -> Vec<&'a Value> {
    let all = json["instances"].as_array().unwrap();
    all.iter().filter(|row| row["host"] == host).collect()
}

#[test]
fn a_command_reloads_the_instances_of_its_host() {
    let bed = Bed::start(&[1, 1]);
    reload_by(&bed, 1, "[\"kill\", \"-HUP\", \"{pid}\"]");
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(0), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("two"));
    assert_eq!(instances(&end.json, "h0")[0]["reloads_by"], "signal");
    assert_eq!(instances(&end.json, "h1")[0]["reloads_by"], "command");
}

#[test]
fn a_command_that_refuses_on_one_host_rolls_every_host_back() {
    let bed = Bed::start(&[1, 1]);
    let script = "grep -q two $1 && echo no such zone && exit 3; kill -HUP $2";
    let argv = format!("[\"sh\", \"-c\", \"{script}\", \"sh\", \"{{config}}\", \"{{pid}}\"]");
    reload_by(&bed, 1, &argv);
    let end = bed.broadcast("two", &[]);
    assert_eq!(end.code, Some(6), "{:#} {}", end.json, end.stderr);
    assert!(bed.all_serve("one"));
    assert_eq!(outcomes(&end.json, "h1"), ["reverted"]);
    let failure = &instances(&end.json, "h1")[0]["failure"];
    assert_eq!(failure["kind"], "rejected", "{failure:#}");
    let text = failure["text"].as_str().unwrap();
    assert!(text.contains("no such zone"), "{text}");
}
