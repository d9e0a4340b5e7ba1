//! dnsmasq under `hello broadcast`, by the shipped kinds. One is for its hosts files. The other is
//! for its config, which dnsmasq never rereads.

use super::{
    acts::only_instance,
    case::Case,
    services::{Service, address, dnsmasq},
};

/// The probe of the kind. dnsmasq reports no load, so it reads a name whose address changes.
const ASKED: &str = "exec = [\"dig\", \"+short\", \"+tries=1\", \"+time=1\", \"-p\", \"{listen.port}\", \"@{listen.host}\", \"a.test\"]";

/// Returns the assertions: the address has changed, and there is one. dnsmasq silently ignores an
/// invalid line.
fn facts() -> String {
    format!(
        "[[group.confirm]]\n{ASKED}\nchanged = true\n[[group.confirm]]\n{ASKED}\ncontains = \".\"\n"
    )
}

/// Returns the key for a config that belongs to another user, as it does if the tests are root.
fn under(dnsmasq: &Service) -> String {
    format!(
        "\nconfig_under = \"{}\"",
        dnsmasq.daemon.dir.path().display()
    )
}

/// Returns how often it has read its hosts file.
fn loads(dnsmasq: &Service) -> String {
    let result = format!("read {}", dnsmasq.daemon.path("hosts").display());
    dnsmasq
        .daemon
        .log()
        .lines()
        .filter(|line| line.contains(&result))
        .count()
        .to_string()
}

fn of_hosts<'a>(dnsmasq: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let group = format!(
        "match = {{ exe = \"dnsmasq\", args = [\"{}\"] }}",
        dnsmasq.daemon.path("hosts").display()
    ) + &under(dnsmasq);
    let case = Case {
        daemon: &dnsmasq.daemon,
        kind: "dnsmasq-hosts",
        file: "hosts",
        group,
        facts: facts(),
        loads,
    };
    case.fleet("");
    case
}

fn of_config<'a>(dnsmasq: &'a Service, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let group = format!(
        "match = {{ exe = \"dnsmasq\", args = [\"{}\"] }}",
        dnsmasq.daemon.path("dnsmasq.conf").display()
    ) + &under(dnsmasq);
    let case = Case {
        daemon: &dnsmasq.daemon,
        kind: "dnsmasq",
        file: "dnsmasq.conf",
        group,
        facts: String::new(),
        loads,
    };
    case.fleet("");
    case
}

#[test]
fn dnsmasq_loads_good_hosts_and_is_rolled_back_from_hosts_that_it_ignores() {
    let Some(dnsmasq) = dnsmasq() else { return };
    let loads = || loads(&dnsmasq);
    let case = of_hosts(&dnsmasq, &loads);
    case.fleet("timeout = \"1s\"");
    case.takes("192.0.2.2 a.test\n", "content");
    assert_eq!(address(&dnsmasq, "a.test"), "192.0.2.2");
    // The same bytes change no answer, which proves nothing.
    assert_eq!(
        only_instance(&case.settles_as((12, "unconfirmed")))["proof"],
        "none"
    );
    // Its own test ignores hosts files, so no validator rejects this one.
    // It always answers the old address, which shows no end of a reload.
    let unseen = (7, "revert_failed");
    case.rolls_back_as("192.0.2.300 a.test\n", "timed_out", unseen);
    assert_eq!(address(&dnsmasq, "a.test"), "192.0.2.2");
    // Nor can it be observed whether these hosts were ever served.
    case.rolls_back_as("192.0.2.2 a.test\n192.0.2.3 b.test\n", "timed_out", unseen);
    assert_eq!(address(&dnsmasq, "b.test"), "");
    dnsmasq.daemon.status().expect(0);
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(dnsmasq) = dnsmasq() else { return };
    let loads = || loads(&dnsmasq);
    let case = of_hosts(&dnsmasq, &loads);
    // The old address shows the rollback only if the new one was seen before.
    case.continues_as(
        "192.0.2.2 a.test\n",
        &[(6, "reverted"), (7, "revert_failed")],
    );
    case.stops_and_dies("192.0.2.2 a.test\n", "");
}

#[test]
fn a_change_of_dnsmasqs_config_needs_a_restart_and_is_validated() {
    let Some(dnsmasq) = dnsmasq() else { return };
    let loads = || loads(&dnsmasq);
    let case = of_config(&dnsmasq, &loads);
    let good = case.text();
    assert_eq!(
        case.untouched(0, &[], || dnsmasq.daemon.broadcast(&[]))
            .states(),
        ["unchanged"]
    );
    let other = good.replace("192.0.2.50", "192.0.2.51");
    case.untouched(10, &["dnsmasq.conf", "only at its start"], || {
        case.change(&other)
    });
    case.refuses(&format!("{good}nonsense\n"), "bad option at line 4");
    // The file is edited by hand.
    case.edit(&other);
    case.untouched(10, &["dnsmasq.conf", "only at its start"], || {
        dnsmasq.daemon.broadcast(&[])
    });
    assert_eq!(address(&dnsmasq, "conf.test"), "192.0.2.50");
}
