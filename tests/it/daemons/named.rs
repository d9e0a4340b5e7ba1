//! named under `hello broadcast`, by the shipped kind, which asks it by rndc.

use super::{
    asked::{Named, named, named_zone, soa},
    case::{Case, keys_of},
};

/// The assertion of the kind.
const KIND: &str = include_str!("../../../src/kinds/named.toml");

/// Returns its config with one more zone.
fn with_zone(named: &Named, zone: &str) -> String {
    named.text() + &named_zone(zone)
}

/// Returns how often it has begun to read its config.
fn loads(named: &Named) -> String {
    let log = named.service.daemon.log();
    log.matches("loading configuration from")
        .count()
        .to_string()
}

/// Returns its group, with rndc asking the server of `other`.
fn case_by<'a>(named: &'a Named, other: &Named, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let config = named.service.daemon.path("named.conf");
    let options = other.rndc();
    let words: Vec<String> = options.iter().map(|word| format!("{word:?}")).collect();
    let words = words.join(", ");
    let (_, facts) = keys_of(KIND).split_once("[[confirm]]").unwrap();
    let facts = facts.replace("\"{config}\"]", &format!("\"{{config}}\", {words}]"));
    let case = Case {
        daemon: &named.service.daemon,
        kind: "named",
        file: "named.conf",
        group: format!(
            "match = {{ exe = \"named\", args = [\"{}\"] }}\nreload_by = [\"rndc\", {words}, \"reload\"]",
            config.display()
        ),
        facts: format!("[[group.confirm]]{facts}"),
        loads,
    };
    case.fleet("");
    case
}

fn case<'a>(named: &'a Named, loads: &'a dyn Fn() -> String) -> Case<'a> {
    case_by(named, named, loads)
}

#[test]
fn named_loads_good_configs_and_refuses_bad_ones() {
    let Some(named) = named() else { return };
    let loads = || loads(&named);
    let case = case(&named, &loads);
    case.takes(&with_zone(&named, "y.example"), "reloaded");
    assert!(!soa(&named.service, "y.example").is_empty());
    case.settles();
    let nonsense = with_zone(&named, "z.example") + "nonsense;\n";
    case.refuses(&nonsense, "unknown option 'nonsense'");
    named.service.daemon.write("bad", "x y z\n");
    let zone = named.text() + "zone \"z.example\" { type primary; file \"bad\"; };\n";
    case.refuses(&zone, "not loaded due to errors");
}

#[test]
fn a_config_that_named_cannot_load_is_rolled_back_at_once() {
    let Some(named) = named() else { return };
    let loads = || loads(&named);
    let case = case(&named, &loads);
    let bad = with_zone(&named, "y.example") + "dlz \"x\" { database \"dlopen /none.so\"; };\n";
    let result = case.rolls_back(&bad, "rejected");
    assert!(
        result.stderr.contains("'reload' failed"),
        "{}",
        result.stderr
    );
    assert!(soa(&named.service, "y.example").is_empty());
    assert!(!soa(&named.service, "x.example").is_empty());
}

#[test]
fn a_named_that_rndc_does_not_reach_is_refused_before_the_run() {
    let Some(named) = named() else { return };
    let loads = || loads(&named);
    let mut case = case(&named, &loads);
    case.facts = case.facts.replace("rndc.key", "none.key");
    case.fleet("");
    let new = with_zone(&named, "y.example");
    case.untouched(5, &["rndc fails"], || case.change(&new));
}

#[test]
fn an_answer_of_another_named_is_refused_before_the_run() {
    let (Some(named), Some(other)) = (named(), super::asked::named()) else {
        return;
    };
    let loads = || loads(&named);
    let case = case_by(&named, &other, &loads);
    let file = other.service.daemon.path("named.conf");
    let says = format!("the server that answers rndc reads {}", file.display());
    case.untouched(5, &[&says], || case.change(&with_zone(&named, "y.example")));
    assert_eq!(self::loads(&other), "1");
}

/// The kind cannot see it.
#[test]
fn named_skips_a_taken_address_and_only_its_log_says_so() {
    let Some(named) = named() else { return };
    let loads = || loads(&named);
    let case = case(&named, &loads);
    let (_taken, port) = super::acts::taken_port();
    let more = format!("listen-on port {port} {{ 127.0.0.1; }}; listen-on port");
    let text = named.text().replacen("listen-on port", &more, 1);
    case.takes(&text, "reloaded");
    let log = named.service.daemon.log();
    assert!(log.contains("address in use"), "{log}");
}

/// Stops or kills it during a reload. A rndc that was ended has asked for nothing.
pub(super) fn stopped_or_killed() {
    let Some(named) = named() else { return };
    let loads = || loads(&named);
    let case = case(&named, &loads);
    let text = with_zone(&named, "y.example");
    case.continues(&text);
    case.is_refused_while_stopped(&text);
    case.stays_stopped(&text, "");
    case.is_killed(&text, "");
}
