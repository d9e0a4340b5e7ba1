//! What the kernel does not tell, and what a long life costs.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::{Watch, command, config, replace, serves};
use crate::{
    daemons::need,
    support::{Fleet, get, runs_as_root},
};

/// Starts a server, and a watch whose user namespace has this limit of inotify.
const LIMITED: &str = r#"
dir=$1; exe=$2; limit=$3; shift 3
"$exe" serve --config "$dir/web.toml" >"$dir/url" &
until [ -s "$dir/url" ]; do sleep 0.02; done
echo 0 >"/proc/sys/user/$limit" && exec "$@"
"#;

#[test]
fn without_inotify_the_content_is_read_at_intervals_and_a_line_says_so() {
    if !runs_as_root("only root sees its processes from a user namespace") || !need("unshare") {
        return;
    }
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
        let fleet = Fleet::start(0);
        let inner = command(&fleet, &["--debounce", "100ms"]);
        let mut unshare = Command::new("unshare");
        unshare
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["--mount-proc", "sh", "-c", LIMITED, "sh"])
            .arg(fleet.dir.path())
            .arg(fleet.exe())
            .arg(limit)
            .arg(inner.get_program())
            .args(inner.get_args());
        let watch = Watch::spawn(&mut unshare);
        watch.until("its first run has converged", || watch.succeeded());
        watch.waits_for(words);
        watch.waits_for("read every 2s instead");
        assert_eq!(watch.metric("hello_watch_polling"), Some(1.0));
        let url = fs::read_to_string(fleet.path("url")).unwrap();
        replace(&fleet, "web.toml", &config("two"));
        watch.until("it is served", || get(url.trim(), "/").1 == "two");
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
    watch.until("its first run has ended", || watch.runs() > 0);
    let address = fs::read_to_string(url).unwrap().trim().to_owned();
    // In place: a rename would not be seen through the mount.
    fs::write(fleet.path("real/web.toml"), config("two")).unwrap();
    watch.until("the server has it", || get(&address, "/").1 == "two");
    watch.until("the run has ended", || watch.runs_with("converged") == 2);
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
        watch.until("the run has ended", || watch.runs() > runs);
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
    watch.until("its first run has ended", || watch.runs() > 0);
    for index in 0..60 {
        let runs = watch.runs();
        replace(&fleet, "web.toml", &config(&format!("m{index}")));
        watch.until("the run has ended", || watch.runs() > runs);
    }
    serves(&fleet, "m59");
}
