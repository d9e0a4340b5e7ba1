//! Daemons that are stopped or killed during a reload. The tests mostly wait, so they run
//! concurrently.

use super::{
    alertmanager, dnsmasq, dovecot, icinga2, keepalived, lighttpd, mosquitto, named, nats, postfix,
    postgres, prometheus, squid, unbound,
};

#[test]
fn every_daemon_that_is_stopped_or_killed_is_reported() {
    let all: [(&str, fn()); 14] = [
        ("prometheus", prometheus::stopped_or_killed),
        ("alertmanager", alertmanager::stopped_or_killed),
        ("nats-server", nats::stopped_or_killed),
        ("postgres", postgres::stopped_or_killed),
        ("dnsmasq", dnsmasq::stopped_or_killed),
        ("squid", squid::stopped_or_killed),
        ("postfix", postfix::stopped_or_killed),
        ("icinga2", icinga2::stopped_or_killed),
        ("lighttpd", lighttpd::stopped_or_killed),
        ("named", named::stopped_or_killed),
        ("mosquitto", mosquitto::stopped_or_killed),
        ("dovecot", dovecot::stopped_or_killed),
        ("unbound", unbound::stopped_or_killed),
        ("keepalived", keepalived::stopped_or_killed),
    ];
    let all = all.map(|(name, check)| (name, std::thread::spawn(check)));
    let failed: Vec<&str> = all
        .into_iter()
        .filter_map(|(name, thread)| thread.join().is_err().then_some(name))
        .collect();
    assert_eq!(failed, [""; 0], "the reason of each is above");
}
