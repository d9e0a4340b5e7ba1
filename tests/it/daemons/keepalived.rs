//! keepalived under `hello broadcast`, by the shipped kind, in a network namespace of its own. It
//! reports a reload only in its log, so each group has an assertion of its own.

use super::{Daemon, case::Case, command, folder, need};
use crate::support::{runs_as_root, until, write};

/// Returns a config with this last number of its address.
fn text(number: u8) -> String {
    format!(
        "global_defs {{\n  router_id one\n}}\nvrrp_instance a {{\n  state BACKUP\n  interface v0\n  virtual_router_id 7\n  priority 100\n\
         \x20 advert_int 1\n  virtual_ipaddress {{\n    10.9.9.{number}/32 dev v0\n  }}\n}}\n"
    )
}

/// Starts keepalived with the address 10.9.9.70.
fn keepalived() -> Option<Daemon> {
    let there = ["keepalived", "unshare", "nsenter", "ip"]
        .iter()
        .all(|name| need(name));
    (there && runs_as_root("keepalived needs root")).then(|| {
        let dir = folder();
        let config = write(&dir.path().join("keepalived.conf"), &text(70));
        let own = "ip link add v0 type veth peer name v1 && ip addr add 10.9.9.1/24 dev v0 && ip link set v0 up && ip link set v1 up && \
                   exec \"$0\" --dont-fork --log-console --pid=main --vrrp_pid=vrrp --checkers_pid=checkers -f \"$1\"";
        let mut unshare = command("unshare");
        unshare
            .args(["--net", "sh", "-c", own])
            .arg(command("keepalived").get_program())
            .arg(config);
        let mut daemon = Daemon::spawn(dir, &mut unshare);
        daemon.has_own_network = true;
        until("it has begun to work", || {
            assert!(daemon.runs(), "{}", daemon.log());
            daemon.log().contains("Startup complete")
        });
        daemon
    })
}

/// Returns how often it has read its config again.
fn loads(keepalived: &Daemon) -> String {
    keepalived
        .log()
        .matches("Reload complete")
        .count()
        .to_string()
}

fn case<'a>(keepalived: &'a Daemon, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let facts = format!(
        "[[group.confirm]]\nlog = \"{}\"\ncontains = \"Reload complete\"\n",
        keepalived.path("log").display()
    );
    Case::of(keepalived, ("keepalived", "keepalived.conf"), loads).with_facts(facts)
}

#[test]
fn keepalived_loads_good_configs_and_refuses_bad_ones() {
    let Some(keepalived) = keepalived() else {
        return;
    };
    let loads = || loads(&keepalived);
    let case = case(&keepalived, &loads);
    case.takes(&text(71), "reloaded");
    case.settles();
    case.refuses(&(text(72) + "nonsense x\n"), "Unknown keyword 'nonsense'");
}

#[test]
fn keepalived_without_an_assertion_ends_unconfirmed() {
    let Some(keepalived) = keepalived() else {
        return;
    };
    let loads = || loads(&keepalived);
    let mut case = case(&keepalived, &loads);
    case.facts = String::new();
    case.fleet("timeout = \"1s\"");
    let result = case.change(&text(71)).expect(12);
    assert_eq!(result.states(), ["unconfirmed"]);
    until("it has read it", || loads() == "1");
}

#[test]
fn an_interface_that_is_not_there_ends_keepalived() {
    let Some(keepalived) = keepalived() else {
        return;
    };
    let loads = || loads(&keepalived);
    let case = case(&keepalived, &loads);
    // Its own validator would find this fault.
    case.fleet("validate = [\"true\", \"{candidate}\"]");
    case.dies(&text(71).replace("interface v0", "interface v9"));
}

/// Stops or kills it during a reload.
pub(super) fn stopped_or_killed() {
    let Some(keepalived) = keepalived() else {
        return;
    };
    let loads = || loads(&keepalived);
    let case = case(&keepalived, &loads);
    case.continues(&text(71));
    case.stops_and_dies(&text(71), "");
}
