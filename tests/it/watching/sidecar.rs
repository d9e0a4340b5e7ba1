//! The arrangement of a pod: daemon and watch in one PID namespace, each with mounts of its own, and
//! the config on a read-only mount whose link `..data` is swapped.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use super::{Watch, add_to_group, command, config, journal};
use crate::{
    daemons::need,
    support::{Fleet, get, runs_as_root, write},
};

/// Starts a server and a watch in the namespaces of a pod. The arguments are the folder, the
/// server, and the command of the watch.
const POD: &str = r#"
dir=$1; exe=$2; shift 2
contained() {
  unshare --mount sh -c 'mount --bind "$0/volume" "$0/etc" &&
    mount -o remount,bind,ro "$0/etc" && exec "$@"' "$dir" "$@"
}
contained "$exe" serve --config "$dir/etc/web.toml" >"$dir/url" &
until [ -s "$dir/url" ]; do sleep 0.02; done
contained "$@"
"#;

/// Swaps the content of a volume as the kubelet does, and removes the old one.
fn swap(volume: &Path, name: &str, text: &str) {
    let old = fs::read_link(volume.join("..data")).ok();
    fs::create_dir(volume.join(name)).unwrap();
    write(&volume.join(name).join("web.toml"), text);
    symlink(name, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

struct Pod {
    fleet: Fleet,
    watch: Watch,
    url: String,
}

impl Pod {
    fn start(keys: &str) -> Option<Self> {
        if !runs_as_root("only root makes the namespaces of a pod") || !need("unshare") {
            return None;
        }
        let fleet = Fleet::start(0);
        let dir = fleet.dir.path().display().to_string();
        add_to_group(&fleet, &keys.replace("DIR", &dir));
        let volume = fleet.path("volume");
        fs::create_dir(&volume).unwrap();
        fs::create_dir(fleet.path("etc")).unwrap();
        // The mode of such a volume in Kubernetes.
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        swap(&volume, "..1", &config("one"));
        symlink("..data/web.toml", volume.join("web.toml")).unwrap();
        let watch = command(&fleet, &["--debounce", "100ms"]);
        let mut pod = Command::new("unshare");
        pod.args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            POD,
            "sh",
        ])
        .arg(fleet.dir.path())
        .arg(fleet.exe())
        .arg(watch.get_program())
        .args(watch.get_args());
        let watch = Watch::spawn(&mut pod);
        watch.until("its first run has ended", || watch.runs() > 0);
        let url = fs::read_to_string(fleet.path("url"))
            .unwrap()
            .trim()
            .to_owned();
        Some(Self { fleet, watch, url })
    }

    fn swap(&self, name: &str, text: &str) {
        swap(&self.fleet.path("volume"), name, text);
    }

    fn message(&self) -> String {
        get(&self.url, "/").1
    }
}

#[test]
fn in_a_pod_each_swap_is_exactly_one_run() {
    let Some(pod) = Pod::start("") else { return };
    let watch = &pod.watch;
    assert_eq!(watch.runs_with("converged"), 1, "{}", watch.text());
    for (index, message) in ["two", "three"].into_iter().enumerate() {
        pod.swap(&format!("..{}", index + 2), &config(message));
        watch.until("the run has ended", || watch.runs() == index + 2);
        assert_eq!(pod.message(), message, "{}", watch.text());
    }
    assert_eq!(watch.runs_with("converged"), 3, "{}", watch.text());
}

#[test]
fn in_a_pod_a_bad_content_touches_nothing_and_the_old_one_converges() {
    let Some(pod) = Pod::start("") else { return };
    let watch = &pod.watch;
    pod.swap("..2", "messag = \"bad\"\n");
    watch.until("it is refused", || watch.runs_with("invalid") > 0);
    assert_eq!(pod.message(), "one");
    pod.swap("..3", &config("one"));
    watch.until("it has converged", || watch.succeeded());
}

#[test]
fn in_a_pod_a_failed_adoption_says_what_runs_and_stays_a_failure() {
    let Some(pod) =
        Pod::start("rollout.gate = [\"sh\", \"-c\", \"! grep -q bad DIR/etc/web.toml\"]")
    else {
        return;
    };
    let watch = &pod.watch;
    // Its bytes are known then, and a rollback would be possible on a mount that can be written.
    pod.swap("..2", &config("two"));
    watch.until("the run has ended", || watch.runs() == 2);
    pod.swap("..3", &config("bad"));
    watch.until("it has failed", || watch.failed());
    assert_eq!(watch.runs_with("mixed"), 1, "{}", watch.text());
    watch.waits_for("no rollback: `");
    watch.waits_for("Read-only file system");
    watch.waits_for(" runs sha256:");
    assert_eq!(pod.message(), "bad", "it runs what the line says");
    let runs = journal(&pod.fleet.path("state"));
    let events = fs::read_to_string(runs.last().unwrap().join("events.jsonl")).unwrap();
    assert!(events.contains("\"stopped\""), "{events}");
    assert!(!events.contains("\"rollback_began\""), "{events}");
    pod.swap("..4", &config("three"));
    watch.until("it has converged", || watch.succeeded());
    assert_eq!(pod.message(), "three");
}
