//! A key of a real etcd as the source of a group.

use super::{Watch, add_to_group, config, serves};
use crate::{
    stores::{etcd::Etcd, overwrite},
    support::Fleet,
};

/// Servers whose config comes from the key `web`, with a first value.
fn start(count: usize, message: &str) -> Option<(Fleet, Etcd)> {
    let etcd = Etcd::start()?;
    let fleet = Fleet::start(count);
    let keys = format!(
        "source = \"{}\"\n[[store]]\nurl = \"{}\"\ntimeout = \"2s\"",
        etcd.url("web"),
        etcd.url("").trim_end_matches('/')
    );
    add_to_group(&fleet, &keys);
    overwrite(&etcd.key("web"), &config(message));
    Some((fleet, etcd))
}

#[test]
fn a_new_value_of_a_key_is_one_run_and_a_bad_one_touches_nothing() {
    let Some((fleet, etcd)) = start(2, "two") else {
        return;
    };
    let key = etcd.key("web");
    let watch = Watch::start(&fleet, &[]);
    serves(&fleet, "two");
    assert_eq!(watch.runs(), 1, "{}", watch.text());
    overwrite(&key, &config("three"));
    serves(&fleet, "three");
    watch.until("the run has ended", || watch.runs() == 2);
    watch.waits_for(&format!("after a change of `{}`", etcd.url("web")));
    overwrite(&key, "messag = \"bad\"\n");
    watch.until("it is refused", || watch.runs_with("invalid") > 0);
    assert_eq!(fleet.text(), config("three"));
    overwrite(&key, &config("three"));
    watch.until("the old value converges", || watch.succeeded());
    overwrite(&key, &config("four"));
    serves(&fleet, "four");
}

#[test]
fn a_store_that_is_away_or_lost_its_data_replaces_nothing() {
    let Some((fleet, mut etcd)) = start(1, "two") else {
        return;
    };
    let watch = Watch::start(&fleet, &[]);
    serves(&fleet, "two");
    etcd.stop();
    watch.until("it has failed", || watch.failed());
    assert_eq!(
        (fleet.text(), fleet.bodies()),
        (config("two"), vec!["two".into()])
    );
    etcd.lose_data();
    watch.waits_for("there is no such key");
    assert_eq!(
        (fleet.text(), fleet.bodies()),
        (config("two"), vec!["two".into()])
    );
    overwrite(&etcd.key("web"), &config("three"));
    serves(&fleet, "three");
    watch.until("it has converged", || watch.succeeded());
}

#[test]
fn a_value_of_a_key_that_is_the_target_is_adopted() {
    let Some(etcd) = Etcd::start() else { return };
    let key = etcd.key("web");
    overwrite(&key, "message = \"one\"\n");
    let mut fleet = Fleet::start(0);
    let tables = format!(
        "config = \"{}\"\n[[store]]\nurl = \"{}\"\ntimeout = \"2s\"",
        etcd.url("web"),
        etcd.url("").trim_end_matches('/')
    );
    add_to_group(&fleet, &tables);
    let tables = fleet.path("fleet.toml");
    for _ in 0..2 {
        let url = etcd.url("web");
        fleet.serve_with(
            "web.toml",
            &["--store", &url, "--fleet", tables.to_str().unwrap()],
        );
    }
    let watch = Watch::start(&fleet, &[]);
    watch.until("the first run has ended", || watch.succeeded());
    overwrite(&key, "message = \"two\"\n");
    serves(&fleet, "two");
    overwrite(&key, "messag = \"bad\"\n");
    watch.until("it is refused", || watch.runs_with("invalid") > 0);
    assert_eq!(fleet.bodies(), ["two", "two"]);
}
