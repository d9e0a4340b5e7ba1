//! What the kernel does not tell, and what a long life costs.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::{Watch, command, config, replace, serves};
use crate::{
    daemons::need,
    support::{Fleet, runs_as_root, skipped, until},
};

/// Starts a watch in a user namespace with this limit of inotify.
fn limited(fleet: &Fleet, limit: &str) -> Option<Watch> {
    let inner = command(fleet, &["--debounce", "100ms"]);
    let script = format!("echo 0 >/proc/sys/user/{limit} && exec \"$@\"");
    let wrapper = ["--user", "--map-root-user", "sh", "-c", &script, "sh"];
    let can = Command::new("unshare")
        .args(wrapper)
        .arg("true")
        .output()
        .unwrap();
    if !can.status.success() {
        skipped("no user namespace with its own limits is to be had");
        return None;
    }
    let mut unshare = Command::new("unshare");
    unshare
        .args(wrapper)
        .arg(inner.get_program())
        .args(inner.get_args());
    Some(Watch::spawn(&mut unshare))
}

#[test]
fn without_inotify_the_content_is_read_at_intervals_and_a_line_says_so() {
    for (limit, words) in [
        (
            "max_inotify_instances",
            "fs.inotify.max_user_instances is reached",
        ),
        (
            "max_inotify_watches",
            "fs.inotify.max_user_watches is reached",
        ),
    ] {
        let fleet = Fleet::start(1);
        let Some(watch) = limited(&fleet, limit) else {
            return;
        };
        until("its first run has ended", || watch.runs() > 0);
        watch.waits_for(words);
        watch.waits_for("read every 2s instead");
        assert_eq!(watch.metric("hello_watch_polling"), Some(1.0));
        replace(&fleet, "web.toml", &config("two"));
        serves(&fleet, "two");
    }
}

#[test]
fn a_file_that_is_mounted_alone_is_watched() {
    if !runs_as_root("only root mounts a file") || !need("unshare") {
        return;
    }
    // Server and watch share a mount namespace, in which the config is a mount of its own.
    let fleet = Fleet::start(0);
    fs::create_dir(fleet.path("real")).unwrap();
    fleet.write("real/web.toml", &config("one"));
    let mount = format!(
        "mount --bind '{}' '{}' && exec \"$@\"",
        fleet.path("real/web.toml").display(),
        fleet.path("web.toml").display()
    );
    let url = fleet.path("url");
    let script = format!(
        "'{}' serve --config '{}' >'{}' & server=$!; trap 'kill $server' EXIT; \
         until [ -s '{}' ]; do sleep 0.02; done; \"$@\" & watch=$!; \
         trap 'kill $watch $server' TERM; wait $watch",
        fleet.exe().display(),
        fleet.path("web.toml").display(),
        url.display(),
        url.display()
    );
    let inner = command(&fleet, &["--debounce", "100ms"]);
    let mut unshare = Command::new("unshare");
    unshare
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            &mount,
        ])
        .args(["sh", "sh", "-c", &script, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    let watch = Watch::spawn(&mut unshare);
    until("its first run has ended", || watch.runs() > 0);
    let address = fs::read_to_string(url).unwrap().trim().to_owned();
    // In place: a rename would not be seen through the mount.
    fs::write(fleet.path("real/web.toml"), config("two")).unwrap();
    until("the server has it", || {
        crate::support::get(&address, "/").1 == "two"
    });
    until("the run has ended", || watch.runs_with("converged") == 2);
}

#[test]
fn an_included_file_is_watched() {
    let fleet = Fleet::start(1);
    let text = fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    // The server does not read it; the group says that its program would.
    fleet.write(
        "web.toml",
        &format!("{}# include more.d/*\n", config("one")),
    );
    fleet.write("fleet.toml", &format!("{text}includes = [\"include\"]\n"));
    let watch = Watch::start(&fleet, &[]);
    let before = watch.runs();
    fs::create_dir(fleet.path("more.d")).unwrap();
    fleet.write("more.d/a", "a");
    until("it is a change", || watch.runs() > before);
}

/// The resident memory in KiB, and the number of open descriptors.
fn cost(watch: &Watch) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", watch.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", watch.pid()))
        .unwrap()
        .count();
    (kib, descriptors)
}

#[test]
fn memory_and_descriptors_do_not_grow_with_the_runs() {
    let (warm, rounds) = if std::env::var_os("HELLO_TEST_FULL").is_some() {
        (200, 2000)
    } else {
        (20, 40)
    };
    let fleet = Fleet::start(1);
    let watch = Watch::start(&fleet, &["--debounce", "0s"]);
    let round = |index: usize| {
        let runs = watch.runs();
        replace(&fleet, "web.toml", &config(&format!("m{index}")));
        until("the run has ended", || watch.runs() > runs);
    };
    (0..warm).for_each(round);
    let before = cost(&watch);
    (warm..warm + rounds).for_each(round);
    let after = cost(&watch);
    println!(
        "{before:?} after {warm} runs, {after:?} after {} runs",
        warm + rounds
    );
    assert!(after.1 <= before.1 + 2, "descriptors: {before:?} {after:?}");
    assert!(after.0 <= before.0 + 4096, "KiB: {before:?} {after:?}");
    serves(&fleet, &format!("m{}", warm + rounds - 1));
}

#[test]
fn a_reader_of_stdout_that_does_not_read_holds_up_nothing() {
    let fleet = Fleet::start(1);
    let mut blocked = command(&fleet, &["--debounce", "0s", "-o", "jsonl"]);
    let watch = Watch::spawn_with(&mut blocked, Stdio::piped());
    until("its first run has ended", || watch.runs() > 0);
    for index in 0..60 {
        let runs = watch.runs();
        replace(&fleet, "web.toml", &config(&format!("m{index}")));
        until("the run has ended", || watch.runs() > runs);
    }
    serves(&fleet, "m59");
}
