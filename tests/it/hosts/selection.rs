//! The hosts of a fleet: the list, the inventory command, and `--on`.

use serde_json::Value;

use super::Testbed;

fn names(json: &Value) -> Vec<String> {
    let hosts = json["hosts"].as_array().unwrap().iter();
    hosts
        .map(|host| host["name"].as_str().unwrap().to_owned())
        .collect()
}

/// A fleet whose hosts are all ready, with these lines in `[hosts]`.
fn ready(hosts: &str) -> Testbed {
    let testbed = Testbed::new("");
    let script = format!("exec {}", testbed.agent());
    testbed.fleet(&format!("{hosts}\n{}", Testbed::script(&script)));
    testbed
}

#[test]
fn terms_select_hosts_of_the_list_in_its_order() {
    let testbed = ready(
        "list = [\"edge-[01-03]\", { name = \"db-1\", role = \"db\" }, { name = \"lab\", zone = \"lab\" }]",
    );
    let (code, json) = testbed.hosts(&[
        "--on",
        "role=db,edge-*",
        "--on",
        "lab",
        "--except",
        "edge-02",
    ]);
    assert_eq!(code, Some(0), "{json:#}");
    assert_eq!(names(&json), ["edge-01", "edge-03", "db-1", "lab"]);
    let (_, json) = testbed.hosts(&["--on", "!edge-*"]);
    assert_eq!(names(&json), ["db-1", "lab"]);
}

#[test]
fn a_term_that_fits_no_host_ends_with_3() {
    let testbed = ready("list = [\"edge-[01-03]\"]");
    for args in [
        ["--on", "egde-*"],
        ["--except", "zone=lab"],
        ["--on", "edge-01,edge-4"],
    ] {
        assert_eq!(testbed.hosts(&args).0, Some(3), "{args:?}");
    }
    assert_eq!(testbed.run(&["hosts", "--on", "edge-[9-1]"]).code, Some(2));
}

#[test]
fn the_hosts_of_an_inventory_command_follow_those_of_the_list() {
    let json = r#"{"_meta":{"hostvars":{"db-1":{"ansible_host":"10.0.3.7","zone":"b"}}},"db":{"hosts":["db-1"]}}"#;
    let testbed = ready(&format!(
        "list = [\"web-1\"]\ninventory = {}",
        serde_json::to_string(&["printf", "%s", json]).unwrap()
    ));
    let (code, json) = testbed.hosts(&[]);
    assert_eq!(code, Some(0), "{json:#}");
    assert_eq!(names(&json), ["web-1", "db-1"]);
    assert_eq!(json["hosts"][1]["address"], "10.0.3.7");
    assert_eq!(json["hosts"][1]["labels"]["group.db"], "yes");
    assert_eq!(names(&testbed.hosts(&["--on", "group.db"]).1), ["db-1"]);
}

#[test]
fn an_inventory_that_fails_ends_with_1_and_an_empty_one_with_3() {
    for (command, code, wanted) in [
        ("echo no cloud >&2; exit 4", 1, "no cloud"),
        ("echo '{'", 1, "JSON"),
        ("echo '-oProxyCommand=id'", 1, "-oProxyCommand"),
        ("echo a -x", 1, "option"),
        ("echo a -oProxyCommand=id", 1, "LABEL=VALUE"),
        ("true", 3, "no host"),
        ("echo a; echo a", 2, "`a`"),
        ("echo a 10.0.0.1; echo b 10.0.0.1", 2, "10.0.0.1"),
    ] {
        let testbed = ready(&format!(
            "inventory = {}",
            serde_json::to_string(&["sh", "-c", command]).unwrap()
        ));
        let (end, json) = testbed.hosts(&[]);
        assert_eq!(end, Some(code), "{command}: {json}");
        let reason = json["reason"].as_str().unwrap();
        assert!(reason.contains(wanted), "{command}: {reason}");
    }
}

#[test]
fn a_name_that_ssh_would_take_for_an_option_is_refused_with_its_line() {
    for hosts in [
        "list = [\"-oProxyCommand=id\"]",
        "list = [{ name = \"a\", address = \"-oProxyCommand=id\" }]",
        "list = [{ name = \"a\", address = \"a b\" }]",
        "list = [\"a\", \"a\"]",
        "list = []",
        "list = [\"a\"]\nconnect = [\"ssh\", \"host\"]",
        "list = [\"a\"]\nsilence = \"500ms\"",
        "list = [\"a\"]\nparallel = 0",
    ] {
        let testbed = Testbed::new("");
        testbed.fleet(hosts);
        let end = testbed.run(&["hosts"]);
        assert_eq!(end.code, Some(2), "{hosts}: {}", end.stderr);
        assert!(end.stderr.contains("line "), "{hosts}: {}", end.stderr);
    }
}

#[test]
fn a_label_in_the_command_is_never_an_option() {
    let testbed = Testbed::new("");
    testbed.fleet(
        "list = [{ name = \"a\", port = \"-oProxyCommand=id\" }, \"b\"]\n\
         connect = [\"ssh\", \"-p\", \"{port}\", \"{address}\"]",
    );
    let (code, json) = testbed.hosts(&[]);
    assert_eq!(code, Some(11));
    let why = |n: usize| json["hosts"][n]["why"].as_str().unwrap().to_owned();
    assert!(why(0).contains("option"), "{}", why(0));
    assert!(why(1).contains("no label `port`"), "{}", why(1));
}

#[test]
fn a_command_of_one_machine_leaves_no_host_out_without_a_word() {
    let testbed = ready("list = [\"a\"]");
    for args in [&["watch", "--once"][..], &["diff"]] {
        let end = testbed.run(args);
        assert_eq!(end.code, Some(2), "{args:?}: {}", end.stderr);
        assert!(
            end.stderr.contains("names hosts"),
            "{args:?}: {}",
            end.stderr
        );
    }
}

#[test]
fn a_fleet_file_without_hosts_is_named() {
    let testbed = Testbed::new("");
    crate::support::write(
        &testbed.path("fleet.toml"),
        "version = 1\n[[group]]\nkind = \"hello\"\n",
    );
    let end = testbed.run(&["hosts"]);
    assert_eq!(end.code, Some(2), "{}", end.stderr);
    assert!(end.stderr.contains("no [hosts] in `"), "{}", end.stderr);
}
