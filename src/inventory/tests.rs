#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

fn hosts(lines: &str) -> Vec<HostEntry> {
    read(lines.as_bytes()).unwrap().1
}

fn never(_: &str, _: selection::Ended, _: &HostName) -> bool {
    false
}

fn selected(terms: &str, lines: &str) -> Vec<String> {
    let hosts = hosts(lines);
    let expression: Expression = terms.parse().unwrap();
    let selected = expression.select(&hosts, never).unwrap();
    selected
        .iter()
        .map(|index| hosts[*index].name.to_string())
        .collect()
}

#[test]
fn a_name_is_safe_in_paths_and_command_lines() {
    for text in ["edge-044", "a", "_x", "10.0.3.7", "web.example.org"] {
        assert_eq!(name(text).as_str(), text);
    }
    for text in [
        "",
        "-oProxyCommand=id",
        ".",
        "..",
        "a b",
        "a/b",
        "a\n",
        "é",
        "a:1",
    ] {
        assert!(HostName::new(text).is_err(), "{text:?}");
    }
    assert!(HostName::new(&"a".repeat(253)).is_ok());
    assert!(HostName::new(&"a".repeat(254)).is_err());
}

#[test]
fn a_name_is_checked_where_it_is_read() {
    assert!(serde_json::from_str::<HostName>("\"a\"").is_ok());
    assert!(serde_json::from_str::<HostName>("\"-a\"").is_err());
}

#[test]
fn an_address_is_never_an_option() {
    assert_eq!(check_address("deploy@10.0.0.1"), Ok(()));
    assert_eq!(check_address("[fe80::1%eth0]"), Ok(()));
    assert_eq!(
        check_address("-oProxyCommand=id"),
        Err(AddressFault::Option)
    );
    assert_eq!(check_address("a b"), Err(AddressFault::Unprintable));
    assert_eq!(check_address("a\x1b[2J"), Err(AddressFault::Unprintable));
    assert_eq!(check_address(""), Err(AddressFault::Empty));
}

#[test]
fn a_range_keeps_the_zeros_at_the_start() {
    assert_eq!(expand("e-[08-10]").unwrap(), ["e-08", "e-09", "e-10"]);
    assert_eq!(expand("e[1,4,7-8]x").unwrap(), ["e1x", "e4x", "e7x", "e8x"]);
    assert_eq!(expand("plain").unwrap(), ["plain"]);
}

#[test]
fn ranges_are_combined_and_the_last_changes_fastest() {
    assert_eq!(
        expand("r[1-2]-[1-2]").unwrap(),
        ["r1-1", "r1-2", "r2-1", "r2-2"]
    );
}

#[test]
fn a_range_that_is_none_is_refused() {
    for text in [
        "e[1-", "e1]", "e[a-b]", "e[]", "e[1-2-3]", "e[-1]", "e]1[", "e[1:40]",
    ] {
        assert!(expand(text).is_err(), "{text}");
    }
    assert!(matches!(expand("e[9-1]"), Err(RangeError::Backwards(_))));
    assert!(matches!(expand("e[1-100001]"), Err(RangeError::Many(_))));
    assert!(matches!(expand("[1-999][1-999]"), Err(RangeError::Many(_))));
}

#[test]
fn lines_have_a_name_an_address_and_labels() {
    let hosts = hosts("# all\nweb-1 10.0.0.1 role=web zone=b # the first\n\ndb-1 role=db\nbare\n");
    assert_eq!(hosts[0].address, "10.0.0.1");
    assert_eq!(hosts[0].labels["zone"], "b");
    assert_eq!(hosts[1].address, "db-1");
    assert_eq!(hosts[2], HostEntry::named(name("bare")));
}

#[test]
fn a_word_that_is_no_label_is_named_with_its_line() {
    let error = read(b"a\nb 10.0.0.1 role\n").unwrap_err();
    assert_eq!(error.to_string(), "line 2: \"role\" is no LABEL=VALUE");
}

#[test]
fn ansible_groups_become_labels_also_through_their_children() {
    let text = r#"{
        "_meta": {"hostvars": {
            "web-1": {"ansible_host": "10.0.0.1", "zone": "b", "port": 22, "keys": ["x"]},
            "db-1": {}
        }},
        "all": {"children": ["web", "db"]},
        "web": {"hosts": ["web-1"], "vars": {}},
        "db": ["db-1"]
    }"#;
    let (format, hosts) = read(text.as_bytes()).unwrap();
    assert_eq!(format, Format::Ansible);
    assert_eq!(hosts[0].address, "10.0.0.1");
    let labels: Vec<&str> = hosts[0].labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["group.all", "group.web", "port", "zone"]);
    assert_eq!(hosts[1].labels["group.db"], "yes");
}

#[test]
fn a_group_below_itself_ends() {
    let text = r#"{"a": {"hosts": ["h"], "children": ["b"]}, "b": {"children": ["a"]}}"#;
    let (_, hosts) = read(text.as_bytes()).unwrap();
    assert_eq!(hosts[0].labels["group.b"], "yes");
}

#[test]
fn the_own_form_has_hosts_with_address_and_labels() {
    let text = r#"{"hosts": {"a": {"address": "10.0.0.1", "role": "web"}, "b": {}}}"#;
    let (format, hosts) = read(text.as_bytes()).unwrap();
    assert_eq!(format, Format::Json);
    assert_eq!(hosts[0].address, "10.0.0.1");
    assert_eq!(hosts[0].labels["role"], "web");
    assert_eq!(hosts[1].address, "b");
}

#[test]
fn a_bad_inventory_is_an_error_and_no_empty_fleet() {
    for text in [
        &b"{"[..],
        b"{}",
        b"{\"x\": 1}",
        b"\xff",
        b"-oProxyCommand=id\n",
        b"a -oProxyCommand=id\n",
        b"{\"hosts\": {\"a\": {\"address\": \"-oProxyCommand=id\"}}}",
    ] {
        assert!(read(text).is_err(), "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn hosts_that_cannot_be_told_apart_are_refused() {
    assert!(check_distinct(&hosts("a\nb\n")).is_ok());
    assert!(matches!(
        check_distinct(&hosts("a\na 10.0.0.1\n")),
        Err(Duplicate::Name(_))
    ));
    let twice = check_distinct(&hosts("a 10.0.0.1\nb 10.0.0.1\n"));
    assert!(matches!(twice, Err(Duplicate::Address { .. })));
}

const FLEET: &str = "edge-01 role=edge zone=a\nedge-02 role=edge zone=lab\nedge-10 role=edge \
                     zone=b\ndb-1 role=db zone=a canary=yes\n";

#[test]
fn terms_form_a_union() {
    assert_eq!(selected("edge-*", FLEET), ["edge-01", "edge-02", "edge-10"]);
    assert_eq!(selected("edge-[01-02]", FLEET), ["edge-01", "edge-02"]);
    assert_eq!(selected("edge-[1,01],db-1", FLEET), ["edge-01", "db-1"]);
    assert_eq!(selected("zone=[ab]", FLEET), ["edge-01", "edge-10", "db-1"]);
    assert_eq!(selected("canary", FLEET), ["db-1"]);
}

#[test]
fn a_negation_takes_hosts_away() {
    assert_eq!(
        selected("role=edge,!zone=lab", FLEET),
        ["edge-01", "edge-10"]
    );
    assert_eq!(selected("!role=edge", FLEET), ["db-1"]);
}

#[test]
fn a_term_that_fits_no_host_is_an_error() {
    for terms in [
        "egde-*",
        "edge-[03-04]",
        "role=web",
        "edge-01,nothing",
        "edge-01,!zone=c",
    ] {
        let expression: Expression = terms.parse().unwrap();
        assert!(expression.select(&hosts(FLEET), never).is_err(), "{terms}");
    }
}

#[test]
fn a_run_selects_the_hosts_that_ended_so() {
    let expression: Expression = "@01ab:failed".parse().unwrap();
    let ended: Vec<_> = expression.runs().collect();
    assert_eq!(ended, [("01ab", selection::Ended::Failed)]);
    let failed = |run: &str, _, host: &HostName| run == "01ab" && host.as_str() == "db-1";
    assert_eq!(expression.select(&hosts(FLEET), failed).unwrap(), [3]);
}

#[test]
fn a_term_that_is_none_is_refused() {
    for text in ["", "a,", "@x", "@x:gone", "@:failed", "[", "zone=[", "***"] {
        assert!(text.parse::<Expression>().is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn an_inventory_of_any_bytes_is_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400)
    ) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_selection_of_any_text_is_read_or_refused(text in ".{0,40}") {
        if let Ok(expression) = text.parse::<Expression>() {
            // What is shown can be typed again.
            prop_assert!(expression.to_string().parse::<Expression>().is_ok());
        }
    }

    #[test]
    fn a_term_and_its_negation_part_the_hosts(
        terms in "(edge-\\*|role=edge|zone=a|db-1|edge-\\[01-02\\])"
    ) {
        let hosts = hosts(FLEET);
        let all: BTreeSet<usize> = (0..hosts.len()).collect();
        let select = |text: &str| -> BTreeSet<usize> {
            text.parse::<Expression>().unwrap().select(&hosts, never).unwrap().into_iter().collect()
        };
        let (one, other) = (select(&terms), select(&format!("!{terms}")));
        prop_assert!(one.is_disjoint(&other));
        prop_assert_eq!(one.union(&other).copied().collect::<BTreeSet<_>>(), all);
    }
}

#[test]
fn all_names_of_this_machine_share_their_bytes_and_are_as_large_as_a_text() {
    let read: HostName = serde_json::from_str("\"local\"").unwrap();
    assert_eq!(read.as_str().as_ptr(), HostName::local().as_str().as_ptr());
    assert_eq!(size_of::<HostName>(), size_of::<&str>());
}
