//! `[hosts]` and `[agent]`.

use std::path::Path;

use crate::{
    fleet::{Connect, ConnectError, Count, Fleet, FleetError, Share, WaveEnd},
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

const LIST: &str = "[hosts]\nlist = [\"a\"]\n";

#[test]
fn a_group_has_hosts_and_a_number_on_each() {
    let group = "[[group]]\nkind = \"hello\"\n";
    let fleet = load(&format!("{LIST}{group}")).unwrap();
    assert_eq!(fleet.groups[0].hosts, None);
    assert_eq!(fleet.groups[0].per_host, None);
    let keys = "hosts = \"role=edge,!zone=lab\"\nper_host = \"1..\"\n";
    let fleet = load(&format!("{LIST}{group}{keys}")).unwrap();
    let group = &fleet.groups[0];
    let hosts = group.hosts.as_ref().unwrap().to_string();
    assert_eq!(hosts, "role=edge,!zone=lab");
    let one_or_more = Count {
        min: 1,
        max: usize::MAX,
    };
    assert_eq!(group.per_host, Some(one_or_more));
}

#[test]
fn a_group_takes_the_keys_about_hosts_from_the_rollout_of_the_file() {
    let top = "[rollout]\nwaves = [{ on = \"canary=yes\" }, \"25%\"]\nspread = \"zone\"\n\
               apart = \"pair\"\n";
    let own = "[[group]]\nname = \"own\"\nkind = \"hello\"\n[group.rollout]\n\
               waves = { on = \"a\" }\napart = \"rack\"\n";
    let group = "[[group]]\nkind = \"hello\"\n";
    let fleet = load(&format!("{LIST}{top}{group}{own}")).unwrap();
    let rollout = &fleet.groups[0].rollout;
    let canary = WaveEnd::Hosts {
        on: "canary=yes".parse().unwrap(),
    };
    assert_eq!(rollout.waves, [canary, Share::Part(2_500).into()]);
    assert_eq!(rollout.spread.as_deref(), Some("zone"));
    assert_eq!(rollout.apart.as_deref(), Some("pair"));
    let rollout = &fleet.groups[1].rollout;
    let text: Vec<String> = rollout.waves.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["{ on = \"a\" }"]);
    assert_eq!(rollout.spread.as_deref(), Some("zone"));
    assert_eq!(rollout.apart.as_deref(), Some("rack"));
}

#[test]
fn a_run_may_go_without_no_host_unless_the_file_says_so() {
    let max = |keys: &str| {
        let fleet = load(&format!("{LIST}{keys}")).unwrap();
        fleet.hosts.unwrap().max_unreachable
    };
    assert_eq!(max(""), Share::Count(0));
    assert_eq!(max("max_unreachable = 2"), Share::Count(2));
    assert_eq!(max("max_unreachable = \"1%\""), Share::Part(100));
}

#[test]
fn a_fault_in_a_key_about_hosts_is_shown_with_its_place() {
    let group = "[[group]]\nkind = \"hello\"\n";
    for (keys, place, wanted) in [
        ("hosts = \"a,,b\"", "line 6, column 9", "an empty term"),
        ("hosts = \"@7:lost\"", "line 6, column 9", "earlier run"),
        ("per_host = \"2..1\"", "line 6, column 12", "wrong order"),
        (
            "rollout.spread = \"-\"",
            "line 6, column 18",
            "cannot be a label",
        ),
        (
            "rollout.apart = \"a b\"",
            "line 6, column 17",
            "cannot be a label",
        ),
        (
            "rollout.waves = [{ in = \"a\" }]",
            "line 6, column 17",
            "{ on = \"TERM\" }",
        ),
        (
            "rollout.waves = [{ on = \"a\", x = 1 }]",
            "line 6, column 17",
            "{ on = \"TERM\" }",
        ),
        (
            "rollout.waves = [{ on = \"e[1\" }]",
            "line 6, column 17",
            "do not fit together",
        ),
        (
            "rollout.waves = [{ on = \"@7:lost\" }]",
            "line 6, column 17",
            "earlier run",
        ),
        (
            "rollout.waves = [{ on = \"a\" }, 1, { on = \"a\" }]",
            "line 6, column 17",
            "{ on = \"a\" } after { on = \"a\" }",
        ),
        (
            "rollout.waves = [\"100%\", { on = \"a\" }]",
            "line 6, column 17",
            "adds no instances",
        ),
    ] {
        let fault = load(&format!("{LIST}{group}{keys}")).unwrap_err();
        let fault = fault.to_string();
        assert!(fault.contains(place), "{keys}: {fault}");
        assert!(fault.contains(wanted), "{keys}: {fault}");
    }
    let fault = load(&format!("{LIST}max_unreachable = \"101%\"")).unwrap_err();
    let fault = fault.to_string();
    assert!(fault.contains("line 4, column 19"), "{fault}");
}

#[test]
fn a_key_about_hosts_is_a_fault_where_the_file_has_none() {
    let group = "[[group]]\nkind = \"hello\"\n";
    for (keys, line, key) in [
        (format!("{group}hosts = \"a\""), "line 4", "`hosts`"),
        (format!("{group}per_host = 1"), "line 4", "`per_host`"),
        (
            format!("{group}rollout.spread = \"zone\""),
            "line 4",
            "`spread`",
        ),
        (
            format!("{group}rollout.waves = [1, {{ on = \"a\" }}]"),
            "line 4",
            "`waves` with `{ on = .. }`",
        ),
        (
            format!("[rollout]\napart = \"pair\"\n{group}"),
            "line 3",
            "`apart`",
        ),
        (
            format!("[rollout]\nwaves = {{ on = \"a\" }}\n{group}"),
            "line 3",
            "`waves` with `{ on = .. }`",
        ),
    ] {
        let fault = load(&keys).unwrap_err().to_string();
        assert!(fault.contains(line), "{fault}");
        let wanted = format!("{key} is about hosts, and this file has no [hosts]");
        assert!(fault.contains(&wanted), "{fault}");
        assert!(load(&format!("{keys}\n{LIST}")).is_ok(), "{keys}");
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
        hosts.connect_argv(&hosts.list[1]).unwrap().unwrap(),
        ["kubectl", "b"]
    );
    let argv = hosts.connect_argv(&hosts.list[0]).unwrap().unwrap();
    assert_eq!(argv[0], "ssh");
}

#[test]
fn a_server_reaches_every_host_without_a_command_of_its_own() {
    let fleet = load(
        "[hosts]\nlist = [\"a\", \"b\"]\nnats = \"nats://127.0.0.1\"\nfleet = \"edge\"\n\
         [[hosts.via]]\non = \"b\"\nconnect = [\"kubectl\", \"{name}\"]",
    );
    let hosts = fleet.unwrap().hosts.unwrap();
    assert_eq!(hosts.connect_argv(&hosts.list[0]).unwrap(), None);
    assert!(hosts.connect_argv(&hosts.list[1]).unwrap().is_some());
    let bus = hosts.bus.unwrap();
    assert_eq!(bus.fleet.as_str(), "edge");
    assert_eq!(bus.origin.to_string(), "127.0.0.1:4222");
}

#[test]
fn a_server_that_cannot_be_meant_is_a_fault() {
    for (keys, why) in [
        ("nats = \"nats://127.0.0.1/a/b\"", "nats://HOST:PORT"),
        (
            "nats = \"nats://me:x@127.0.0.1\"",
            "no user and no password",
        ),
        ("fleet = \"edge\"", "goes with `nats`"),
        ("nats = \"nats://a\"\nfleet = \"a.b\"", "no name of a fleet"),
        (
            "nats = \"nats://a\"\nconnect = [\"x\", \"{name}\"]",
            "instead of `connect`",
        ),
    ] {
        let fault = load(&format!("[hosts]\nlist = [\"a\"]\n{keys}")).unwrap_err();
        assert!(fault.to_string().contains(why), "{keys}: {fault}");
    }
}
