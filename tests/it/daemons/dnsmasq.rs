//! dnsmasq under `hello broadcast`, by the shipped kinds: one for its hosts files, and one for its config, which no signal makes it read.

use super::{
    acts::only,
    case::Case,
    services::{Service, address, dnsmasq},
};

/// As the kind says: it tells nothing of a load, so it is asked for a name whose address changes.
const ASKED: &str = "exec = [\"dig\", \"+short\", \"+tries=1\", \"+time=1\", \"-p\", \"{listen.port}\", \"@{listen.host}\", \"a.test\"]";

/// The name has another address than before, and has one: a line that is no host is left out without a word.
fn facts() -> String {
    format!(
        "[[group.confirm]]\n{ASKED}\nchanged = true\n[[group.confirm]]\n{ASKED}\ncontains = \".\"\n"
    )
}

/// It is another user's where the tests are root.
fn under(dnsmasq: &Service) -> String {
    format!(
        "\nconfig_under = \"{}\"",
        dnsmasq.daemon.dir.path().display()
    )
}

/// How often it has read its hosts file.
fn loads(dnsmasq: &Service) -> String {
    let said = format!("read {}", dnsmasq.daemon.path("hosts").display());
    dnsmasq
        .daemon
        .log()
        .lines()
        .filter(|line| line.contains(&said))
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
    // The same bytes once more change no answer, which proves nothing.
    assert_eq!(only(&case.settles_as((12, "unconfirmed")))["proof"], "none");
    // Its own test does not look at hosts files, so nobody refuses this one.
    // It answers the old address all the time, which shows no end of a reload.
    let unseen = (7, "revert_failed");
    case.goes_back_as("192.0.2.300 a.test\n", "timed_out", unseen);
    assert_eq!(address(&dnsmasq, "a.test"), "192.0.2.2");
    // Nor can it be seen that these are served: whether they were or not, they are not any more.
    case.goes_back_as("192.0.2.2 a.test\n192.0.2.3 b.test\n", "timed_out", unseen);
    assert_eq!(address(&dnsmasq, "b.test"), "");
    dnsmasq.daemon.status().expect(0);
}

/// Stopped or killed while it is reloaded.
pub(super) fn stopped_or_killed() {
    let Some(dnsmasq) = dnsmasq() else { return };
    let loads = || loads(&dnsmasq);
    let case = of_hosts(&dnsmasq, &loads);
    // Only where it was seen on the new address meanwhile, the old one shows that it went back.
    case.goes_on_as(
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
    // Somebody wrote it by hand.
    case.edit(&other);
    case.untouched(10, &["dnsmasq.conf", "only at its start"], || {
        dnsmasq.daemon.broadcast(&[])
    });
    assert_eq!(address(&dnsmasq, "conf.test"), "192.0.2.50");
}
