//! Errors of a `fleet.toml` name their position, and a likely fix.

use super::*;

const GROUP: &str = "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\n";

/// Asserts that the error of each text contains both words.
fn assert_faults(faults: &[(String, [&str; 2])]) {
    for (text, wanted) in faults {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains("fleet.toml"), "{text}\n{error}");
        for wanted in wanted {
            assert!(error.contains(wanted), "{text}\n{error}");
        }
    }
}

#[test]
fn faults_of_the_file_and_of_names() {
    let group = GROUP;
    assert_faults(&[
        (
            "version = 1\n[[group]]\nnmae = \"web\"\n".to_owned(),
            ["line 3, column 1", "did you mean `name`?"],
        ),
        (
            "version = 2\n".to_owned(),
            ["line 1, column 11", "version 1"],
        ),
        ("version = 1\n".to_owned(), ["[[group]]", ""]),
        (String::new(), ["missing field `version`", "add `version"]),
        (
            group.replace("\"hello\"", "\"helo\""),
            ["line 4, column 8", "did you mean `hello`?"],
        ),
        (
            format!("{group}{}", &group[12..]),
            ["line 6, column 8", "two groups are named `web`"],
        ),
        (
            format!("{group}count = \"5..3\"\n"),
            ["line 5, column 9", "wrong order"],
        ),
    ]);
}

#[test]
fn faults_of_any() {
    let one = "{ http = \"http://{listen}/\", equals = \"x\" }";
    let two = "{ exec = [\"ask\"], equals = \"x\" }";
    let of = |list: &str| format!("{GROUP}[[group.confirm]]\nany = {list}\n");
    let at = "line 6, column 7";
    assert!(parse(&of(&format!("[{one}, {two}]"))).is_ok());
    assert_faults(&[
        (of("[]"), [at, "any is empty"]),
        (of(&format!("[{one}]")), [at, "write it without any"]),
        (
            of(&format!("[{one}, {one}]")),
            ["line 6, column 53", "twice"],
        ),
        (
            of(&format!("[{one}, {{ any = [{one}, {two}] }}]")),
            ["line 6, column 61", "no any in it"],
        ),
        (
            of(&format!("[{one}, {{ exec = [\"ask\"], changed = true }}]")),
            [
                "line 6, column 53",
                "mixes equals, contains and matches with changed",
            ],
        ),
        (
            of("[{ log = \"/x\", equals = \"x\" }, { exec = [\"ask\"], equals = \"x\" }]"),
            ["line 6", "mixes lines of a log with equals"],
        ),
        (
            of(&format!("[{one}, {{ exec = [\"ask\"] }}]")),
            ["line 6, column 53", "exactly one of equals"],
        ),
        (
            of(&format!("[{one}, {two}]\nhttp = \"http://{{listen}}/\"")),
            [at, "any stands alone"],
        ),
        (
            of(&format!(
                "[{one}, {{ exec = [\"{{x}}\"], equals = \"x\" }}]"
            )),
            ["line 5", "no placeholder `{x}`"],
        ),
    ]);
}

#[test]
fn faults_of_single_values() {
    let group = GROUP;
    assert_faults(&[
        (
            format!("{group}count = true\n"),
            ["line 5, column 9", "3.."],
        ),
        (
            format!("{group}timeout = \"5 parsecs\"\n"),
            ["line 5, column 11", "no duration"],
        ),
        (
            format!("{group}match = {{ exe = \"[\" }}\n"),
            ["line 5, column 9", "exe"],
        ),
        (
            format!("{group}match = {{ ex = \"a\" }}\n"),
            ["line 5, column 11", "did you mean `exe`?"],
        ),
        (
            format!("{group}match = {{ }}\n"),
            ["line 5, column 9", "nothing"],
        ),
        (
            format!("{group}config = \"web.toml\"\n"),
            ["line 5, column 10", "absolute"],
        ),
    ]);
}

#[test]
fn faults_of_other_values() {
    let group = GROUP;
    assert_faults(&[
        (
            format!("{group}listen = \"8081\"\n"),
            ["line 5, column 10", "tcp:PORT"],
        ),
        (
            format!("{group}signal = \"SIGKILL\"\n"),
            ["line 5, column 10", "SIGHUP"],
        ),
        (
            format!("{group}reloads = \"maybe\"\n"),
            ["line 5, column 11", "unchecked"],
        ),
        (
            format!("{group}name = \"other\"\n"),
            ["line 5, column 1", "duplicate key"],
        ),
        (
            format!("{group}timeout = 5\n"),
            ["line 5, column 11", "invalid type"],
        ),
        (
            format!("{group}instances = [{{ pid = 0 }}]\n"),
            ["line 5, column 13", "above 0"],
        ),
    ]);
}

#[test]
fn faults_of_validators_and_assertions() {
    let group = GROUP;
    assert_faults(&[
        (
            format!("{group}validate = [\"x\", \"{{candidat}}\"]\n"),
            ["line 5, column 18", "{candidate}"],
        ),
        (
            format!("{group}validate = \"nginx -t\"\n"),
            ["line 5, column 12", "`validate = [\"nginx -t\"]`"],
        ),
        (
            format!("{group}validate = 3\n"),
            ["line 5, column 12", "a list of arguments, or \"none\""],
        ),
        (
            format!("{group}on_bad_config = \"dies\"\nvalidate = \"none\"\n"),
            ["line 6, column 12", "revive"],
        ),
        (
            format!("{group}[[group.confirm]]\nlog = \"x.log\"\ncontains = \"a\"\n"),
            ["line 6, column 7", "syslog:NAME"],
        ),
        (
            format!("{group}[[group.confirm]]\nlog = \"/x\"\nchanged = true\n"),
            ["read by its lines", "contains"],
        ),
        (
            format!("{group}[[group.confirm]]\ntcp = \"{{listen}}\"\nmatches = \"(\"\n"),
            ["line 7, column 11", "no regular expression"],
        ),
        (
            format!(
                "{group}[[group.confirm]]\ntcp = \"{{listen}}\"\nregex = \"a\"\nequals = \"b\"\n"
            ),
            ["line 7, column 9", "exactly one"],
        ),
        (
            format!("{group}[[group.confirm]]\ntcp = \"http://x/\"\nequals = \"b\"\n"),
            ["HOST:PORT", ""],
        ),
        (
            format!("{group}[[group.confirm]]\nchildren = \"x\"\nchanged = true\n"),
            ["replaced goes with", "children"],
        ),
        (
            format!("{group}[[group.confirm]]\nexec = [\"x\", \"-{{args}}\"]\nequals = \"a\"\n"),
            ["line 5", "stands alone"],
        ),
        (
            format!(
                "{group}[[group.confirm]]\nhttp = \"http://x/\"\nequals = \"a\"\nchanged = \
                 true\n"
            ),
            ["line 5", "exactly one"],
        ),
    ]);
}

#[test]
fn faults_of_proof_and_order() {
    let group = GROUP;
    assert_faults(&[
        (
            "version = 1\n[[group]]\nname = \"a\"\nmatch = { exe = \"a\" }\n".to_owned(),
            ["line 2", "how a reload is proven"],
        ),
        (
            format!("{group}after = [\"wbe\"]\n"),
            ["line 5, column 9", "did you mean `web`?"],
        ),
        (
            format!("{group}after = \"web\"\n"),
            ["line 5, column 9", "`web` comes after itself"],
        ),
        (
            format!(
                "{group}after = \"b\"\n{}after = \"web\"\n",
                group[12..].replace("web", "b")
            ),
            ["line 5, column 9", "`web`, `b` wait for each other"],
        ),
        (
            format!("{group}after = 1\n"),
            ["line 5, column 9", "list of strings"],
        ),
    ]);
}

#[test]
fn faults_of_waves() {
    let group = GROUP;
    assert_faults(&[
        (
            format!("{group}[group.rollout]\nwave = 1\n"),
            ["line 6, column 1", "did you mean `waves`?"],
        ),
        (
            format!("{group}[group.rollout]\nafter = \"b\"\n"),
            ["line 6, column 1", "unknown field `after`"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = []\n"),
            ["line 6, column 9", "no wave in it"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = [\"1\", \"half\"]\n"),
            ["line 6, column 9", "neither a number"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = [0.25]\n"),
            ["line 6, column 9", "a percentage such as"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = [\"50%\", \"25%\"]\n"),
            ["line 6, column 9", "25% after 50% adds no instances"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = \"0%\"\n"),
            ["line 6, column 9", "a wave of 0% has no instances"],
        ),
        (
            format!("{group}[group.rollout]\nmax_failures = [1, 2]\n"),
            ["line 6, column 16", "neither a number"],
        ),
        (
            format!("{group}[group.rollout]\nmax_failures = -1\n"),
            ["line 6, column 16", "neither a number"],
        ),
    ]);
}

#[test]
fn faults_of_a_budget_and_a_gate() {
    let group = GROUP;
    assert_faults(&[
        (
            format!("{group}[group.rollout]\nmax_failures = \"101%\"\n"),
            ["line 6, column 16", "from 0% to 100%"],
        ),
        (
            format!("{group}[group.rollout]\nmax_unresponsive = true\n"),
            ["line 6, column 20", "neither a number"],
        ),
        (
            format!("{group}[group.rollout]\nbake = \"soon\"\n"),
            ["line 6, column 8", "no duration"],
        ),
        (
            format!("{group}[group.rollout]\nbake = \"2h\"\n"),
            ["line 6, column 8", "1h"],
        ),
        (
            format!("{group}[group.rollout]\ngate = \"check\"\n"),
            ["line 6, column 8", "expected a sequence"],
        ),
        (
            format!("{group}[group.rollout]\ngate = [\"\", \"x\"]\n"),
            ["line 6, column 9", "a program and its arguments"],
        ),
        (
            format!("{group}[group.rollout]\ngate = [\"x\", \"{{candidate}}\"]\n"),
            ["line 6, column 14", "no placeholders"],
        ),
        (
            format!("{group}[group.rollout]\non_failure = \"reverts\"\n"),
            ["line 6, column 14", "did you mean `revert`?"],
        ),
        (
            format!("version = 1\n[rollout]\nmax_failure = 1\n{}", &group[12..]),
            ["line 3, column 1", "did you mean `max_failures`?"],
        ),
    ]);
}

/// A group whose config comes from a key, with these tables behind it.
fn with_source(url: &str, tables: &str) -> String {
    format!("{GROUP}source = \"{url}\"\n{tables}")
}

#[test]
fn faults_of_the_url_of_a_key() {
    assert_faults(&[
        (
            with_source("https://u:p@h/x", ""),
            ["line 5, column 10", "no password"],
        ),
        (
            with_source("htps://h/x", ""),
            ["line 5, column 10", "begins with https://"],
        ),
        (
            with_source("http://h.example/x", ""),
            ["line 5, column 10", "loopback"],
        ),
        (
            with_source("exec://kv/x", ""),
            ["line 5, column 10", "no [[store]] has the commands"],
        ),
        (
            with_source(
                "exec://kv",
                "[[store]]\nurl = \"exec://kv\"\nget = [\"g\"]\n",
            ),
            ["line 5, column 10", "no key"],
        ),
        (
            with_source("https://h/x", "config = [[\"/a\"], [\"/b\"]]\n"),
            ["line 5, column 10", "this group has 2"],
        ),
    ]);
}

#[test]
fn faults_of_a_key_as_the_target() {
    let target = |config: &str, more: &str| format!("{GROUP}config = {config}\n{more}");
    assert_faults(&[
        (
            target("\"https://u:p@h/x\"", ""),
            ["line 5, column 10", "no password"],
        ),
        (
            target("[\"https://h/x\"]", ""),
            ["line 5, column 10", "the only target of its group"],
        ),
        (
            target("[[\"/a\"], [\"https://h/x\"]]", ""),
            ["line 5, column 10", "the only target of its group"],
        ),
        (
            target("\"etcd+https://h//a\"", ""),
            ["line 5, column 10", "write such a `/` as %2F"],
        ),
        (
            target("\"https://h/x\"", "restart_keys = [\"a\"]\n"),
            ["line 5, column 10", "`restart_keys` reads a file"],
        ),
        (
            target("\"https://h/x\"", "source = \"{config}.new\"\n"),
            ["line 5, column 10", "the target is a key"],
        ),
        (
            target(
                "\"etcd+https://h/a\"",
                "[[group]]\nname = \"b\"\nkind = \"hello\"\nconfig = \"etcd+https://h:2379/a\"\n",
            ),
            ["line 9, column 10", "name one key by two URLs"],
        ),
    ]);
}

#[test]
fn faults_of_a_store() {
    let store = |lines: &str| {
        format!("{GROUP}[[store]]\nurl = \"https://h\"\n{lines}\n")
            .replace("url = \"https://h\"\nurl", "url")
    };
    assert_faults(&[
        (
            format!("{GROUP}[[store]]\n"),
            ["line 5, column 1", "`url` is missing"],
        ),
        (
            store("[[store]]\nurl = \"https://h\""),
            ["line 8, column 7", "two stores"],
        ),
        (
            store("url = \"https://u:geheim@h\""),
            ["line 6, column 7", "no password"],
        ),
        (
            store("url = \"http://h.example\""),
            ["line 6, column 7", "loopback"],
        ),
        (store("get = [\"a\"]"), ["line 7, column 7", "exec://"]),
        (
            store("url = \"exec://kv\""),
            ["line 6, column 7", "`get = [argv]`"],
        ),
        (
            store("url = \"exec://kv\"\nget = []"),
            ["line 7, column 7", "empty"],
        ),
        (
            store("url = \"exec://kv\"\nget = [\"a\", \"{rev}\"]"),
            ["line 7, column 13", "there are: {key}"],
        ),
        (
            store("url = \"exec://kv\"\nget = [\"a\"]\nput = [\"{exe}\"]"),
            ["line 8, column 8", "there are: {key}, {rev}"],
        ),
        (
            store("url = \"exec://kv\"\nget = [\"a\"]\nauth_file = \"/a\""),
            ["line 8, column 13", "themselves"],
        ),
        (
            store("auth_file = \"a\""),
            ["line 7, column 13", "{credentials}/NAME"],
        ),
        (
            store("auth_file = \"{credentials}/../a\""),
            ["line 7, column 13", "{credentials}/NAME"],
        ),
        (
            store("auth_file = \"/a\"\nbearer_file = \"/b\""),
            ["line 7, column 13", "one of auth_file"],
        ),
        (
            store("client_cert = \"/a\""),
            ["line 7, column 15", "go together"],
        ),
        (
            store("url = \"http://127.0.0.1\"\nca = \"/a\""),
            ["line 7, column 6", "TLS"],
        ),
        (store("timeout = \"0s\""), ["line 7, column 11", "no time"]),
        (
            store("bearer = \"/a\""),
            ["line 7, column 1", "did you mean `bearer_file`?"],
        ),
    ]);
}

#[test]
fn a_store_that_no_key_of_a_group_needs_is_a_fault() {
    let file = |kind: &str| {
        format!(
            "version = 1\n[[group]]\nname = \"web\"\nkind = \"{kind}\"\n\
             source = \"https://config.example/web\"\n\
             [[store]]\nurl = \"https://config.exmple\"\n"
        )
    };
    assert_faults(&[(
        file("nginx"),
        ["line 7, column 7", "begins with this `url`"],
    )]);
    // A server may name a key on its command line.
    assert!(parse(&file("hello")).is_ok());
    let right = file("nginx").replace("exmple", "example");
    assert!(parse(&right).is_ok());
}

#[test]
fn faults_of_a_reload_by_a_command() {
    let group = "version = 1\n[[group]]\nname = \"web\"\nmatch = { exe = \"web\" }\nconfirm = []\n";
    assert_faults(&[
        (
            format!("{group}signal = \"SIGUSR1\"\nreload_by = [\"a\"]\n"),
            ["line 6, column 10", "`signal` beside `reload_by`"],
        ),
        (
            format!("{group}reload_by = [\"a\"]\nreloads = \"unchecked\"\n"),
            ["line 7, column 11", "only `reloads = true`"],
        ),
        (
            format!("{group}reload_by = []\n"),
            ["line 6, column 13", "no program"],
        ),
        (
            format!("{group}reload_by = [\"a\", \"{{nope}}\"]\n"),
            ["line 6, column 19", "no placeholder `{nope}`"],
        ),
    ]);
}

#[test]
fn a_command_of_a_group_replaces_the_signal_of_its_kind_and_what_that_declares() {
    let fleet = parse(&format!("{GROUP}reload_by = [\"a\", \"{{pid}}\"]\n")).unwrap();
    let group = &fleet.groups[0];
    assert_eq!(group.trigger().to_string(), "`a {pid}`");
    assert_eq!(group.reloads, Reloads::Yes);
}
