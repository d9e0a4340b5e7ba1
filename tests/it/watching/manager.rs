//! The service manager, and SIGHUP to the watch itself.

use std::{fs, os::unix::net::UnixDatagram, time::Duration};

use nix::sys::signal::Signal;

use super::{Watch, command, config, replace, serves};
use crate::support::{CommandResult, Fleet, get, until};

#[test]
fn the_service_manager_hears_of_the_start_each_run_each_reload_and_the_end() {
    let fleet = Fleet::start(1);
    let path = fleet.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let hears = |words: &str| loop {
        let mut buffer = [0; 8192];
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains(words) {
            return text;
        }
    };
    let mut watch =
        Watch::spawn(command(&fleet, &["--debounce", "100ms"]).env("NOTIFY_SOCKET", &path));
    hears("READY=1");
    hears("STATUS=Unchanged ");
    replace(&fleet, "web.toml", &config("two"));
    hears("STATUS=run of web");
    hears("STATUS=Converged ");
    watch.signal(Signal::SIGHUP);
    let text = hears("RELOADING=1");
    assert!(text.contains("MONOTONIC_USEC="), "{text}");
    hears("READY=1");
    assert_eq!(watch.end(Signal::SIGTERM).code(), Some(0));
    hears("STOPPING=1");
}

#[test]
fn sighup_reads_the_fleet_again_and_a_bad_one_changes_nothing() {
    let mut fleet = Fleet::start(1);
    let good = fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let watch = Watch::start(&fleet, &[]);
    fleet.write("fleet.toml", &good.replace("kind", "knid"));
    watch.signal(Signal::SIGHUP);
    watch.waits_for("the fleet stays as it was");
    watch.waits_for("knid");
    replace(&fleet, "web.toml", &config("two"));
    serves(&fleet, "two");
    // Now it has another group.
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    let group = |group: &str, config: &str| {
        format!(
            "[[group]]\nname = \"{group}\"\nkind = \"hello\"\n\
             match = {{ exe = \"{name}\", args = [\"serve\", \"{}\"] }}\n",
            fleet.path(config).display()
        )
    };
    let both = format!(
        "version = 1\n{}{}",
        group("new", "web.toml"),
        group("api", "api.toml")
    );
    fleet.write("fleet.toml", &both);
    fleet.write("api.toml", &config("api"));
    fleet.serve_from("api.toml");
    watch.signal(Signal::SIGHUP);
    watch.waits_for("Watching api: 1 instance");
    let of_api = "hello_watch_last_reload_successful{group=\"api\"}";
    until("the new group has a run", || {
        watch.metric(of_api) == Some(1.0)
    });
    assert!(!watch.succeeded(), "the old group has no series");
    assert!(!watch.failed(), "the old group has no series");
}

#[test]
fn the_metrics_name_the_content_that_is_proven() {
    let fleet = Fleet::start(1);
    let watch = Watch::start(&fleet, &[]);
    let target = fleet.path("web.toml").canonicalize().unwrap();
    let series = || {
        let status = fleet.status();
        let sha256 = status.json["instances"][0]["runs"]
            .as_str()
            .unwrap()
            .to_owned();
        format!(
            "hello_watch_config_info{{group=\"web\",target=\"{}\",sha256=\"{sha256}\"}}",
            target.display()
        )
    };
    let before = series();
    assert_eq!(watch.metric(&before), Some(1.0));
    replace(&fleet, "web.toml", &config("two"));
    serves(&fleet, "two");
    until("it is the new content", || {
        watch.metric(&series()) == Some(1.0)
    });
    assert_eq!(watch.metric(&before), None);
    let head = get(&watch.url, "/metrics").0;
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    assert_eq!(get(&watch.url, "/-/healthy").1, "ok\n");
    let page = get(&watch.url, "/metrics").1;
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[test]
fn a_command_line_that_cannot_be_used_is_refused() {
    let fleet = Fleet::start(0);
    for (args, words) in [
        (&["-o", "json"][..], "use -o jsonl"),
        (&["nothing"], "no group `nothing`"),
        (&["--debounce", "x"], "--debounce"),
    ] {
        let result = CommandResult::of(fleet.read_only("watch").args(args)).expect(2);
        assert!(result.stderr.contains(words), "{}", result.stderr);
    }
    let group = "[[group]]\nname = \"x\"\nmatch = { exe = \"x\" }\nreloads = true\nconfirm = []\n";
    fleet.write("fleet.toml", &format!("version = 1\n{group}"));
    let result = CommandResult::of(&mut fleet.read_only("watch")).expect(2);
    assert!(
        result.stderr.contains("nothing to watch"),
        "{}",
        result.stderr
    );
}
