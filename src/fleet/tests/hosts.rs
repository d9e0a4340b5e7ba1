//! `[hosts]` and `[agent]`.

use std::path::Path;

use crate::{
    fleet::{Connect, ConnectError, Fleet, FleetError},
    inventory::{HostEntry, HostName},
};

fn load(hosts: &str) -> Result<Fleet, FleetError> {
    Fleet::parse(
        format!("version = 1\n{hosts}\n").as_bytes(),
        Path::new("fleet.toml"),
    )
}

fn host(labels: &[(&str, &str)]) -> HostEntry {
    let mut host = HostEntry::named(HostName::new("edge-01").unwrap());
    host.address = "10.0.0.1".into();
    for (key, value) in labels {
        host.labels.insert((*key).into(), (*value).into());
    }
    host
}

fn connect(words: &[&str]) -> Connect {
    Connect::new(words.iter().map(|word| (*word).to_owned()).collect()).unwrap()
}

#[test]
fn a_list_has_names_ranges_and_labels() {
    let fleet =
        load("[hosts]\nlist = [\"a\", \"e-[1-2]\", { name = \"d\", address = \"x\", n = 3 }]");
    let hosts = fleet.unwrap().hosts.unwrap();
    let names: Vec<&str> = hosts.list.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["a", "e-1", "e-2", "d"]);
    assert_eq!(hosts.list[3].address, "x");
    assert_eq!(hosts.list[3].labels["n"], "3");
}

#[test]
fn a_file_with_hosts_needs_no_group_and_is_not_this_machine() {
    let fleet = load("[hosts]\nlist = [\"a\"]").unwrap();
    assert!(fleet.groups.is_empty());
    let refused = fleet.of_this_machine();
    assert!(matches!(refused, Err(FleetError::OtherHosts(_))));
}

#[test]
fn a_fault_of_a_host_is_shown_with_its_line() {
    for (hosts, wanted) in [
        ("[hosts]\nlist = [\n \"a\",\n \"-x\"]", "line 5"),
        (
            "[hosts]\nlist = [\"a\"]\n\
             via = [{ on = \"@1:failed\", connect = [\"x\", \"{name}\"] }]",
            "earlier run",
        ),
        ("[hosts]\nlist = [{ address = \"a\" }]", "without `name`"),
        ("[hosts]\nlist = [\"e[1-200000]\"]", "100000"),
        ("[hosts]\n", "neither `list` nor `inventory`"),
        ("[hosts]\ninventory = []", "no program"),
        ("[hosts]\nlists = []", "did you mean `list`?"),
        (
            "[[group]]\nkind = \"hello\"\n[agent]\nname = \"-x\"",
            "line 5",
        ),
    ] {
        let fault = load(hosts).unwrap_err().to_string();
        assert!(fault.contains(wanted), "{hosts}: {fault}");
    }
}

#[test]
fn placeholders_stand_for_the_host_and_other_braces_stay() {
    let words = connect(&[
        "sh",
        "-c",
        "ssh {address} # {name} {zone} {\"a\": 1} { x; } {",
        "}",
    ]);
    let argv = words.argv(&host(&[("zone", "b")])).unwrap();
    assert_eq!(argv[2], "ssh 10.0.0.1 # edge-01 b {\"a\": 1} { x; } {");
}

#[test]
fn a_label_that_is_missing_or_an_option_gives_no_command() {
    let words = connect(&["ssh", "-p{port}", "{address}"]);
    let missing = words.argv(&host(&[]));
    assert_eq!(missing, Err(ConnectError::NoLabel("port".into())));
    let option = words.argv(&host(&[("port", "-oProxyCommand=id")]));
    assert!(matches!(option, Err(ConnectError::Label { .. })));
}

#[test]
fn the_default_command_asks_nothing_and_ends_its_options_before_the_address() {
    let argv = Connect::default().argv(&host(&[])).unwrap();
    let address = argv.iter().position(|word| word == "10.0.0.1").unwrap();
    assert_eq!(argv[address - 1], "--");
    assert!(argv.contains(&"-oBatchMode=yes".to_owned()));
    assert_eq!(argv[address + 1..][..2], ["sudo", "-n"]);
}

#[test]
fn the_first_connection_that_fits_a_host_counts() {
    let fleet = load(
        "[hosts]\nlist = [\"a\", { name = \"b\", k8s = \"x\" }]\n[[hosts.via]]\non = \"k8s\"\n\
         connect = [\"kubectl\", \"{name}\"]\n[[hosts.via]]\non = \"b\"\n\
         connect = [\"no\", \"{name}\"]",
    );
    let hosts = fleet.unwrap().hosts.unwrap();
    assert_eq!(
        hosts.connect_argv(&hosts.list[1]).unwrap(),
        ["kubectl", "b"]
    );
    assert_eq!(hosts.connect_argv(&hosts.list[0]).unwrap()[0], "ssh");
}
