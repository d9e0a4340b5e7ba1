//! A watch that is killed in each phase of its run over instances that do not report their config.

use nix::sys::signal::Signal;

use super::{Watch, config, journal, replace};
use crate::{
    claims::server::{EQUALS, INCREASED, Server, each, group, groups},
    support::{Fleet, get},
};

/// The content of a group, and where the watch takes it from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Source,
    Adopted,
}

/// The events of a journal after which the watch is killed: the run has begun, has installed, may
/// have signalled, has seen a proof, waits.
const FORWARD: [&str; 5] = ["began", "intent", "installed", "instance", "baking"];

/// Starts three servers that are slow enough for a kill during a reload, in two waves with a pause
/// and a gate after each. The gate fails while the file `bad` exists. `assertions` prove a reload.
fn blind(content: Content, assertions: &str) -> (Fleet, Vec<Server>) {
    let fleet = Fleet::start(0);
    let servers = (0..3).map(|_| Server::start(&fleet, "SlowEarly", 200, "web.toml"));
    let servers = servers.collect();
    let source = match content {
        Content::Source => "source = \"{config}.new\"\n",
        Content::Adopted => "",
    };
    let gate = format!("[ ! -e '{}' ]", fleet.path("bad").display());
    let more = format!(
        "{source}[group.rollout]\nwaves = [\"1\", \"100%\"]\nbake = \"200ms\"\n\
         gate = [\"sh\", \"-c\", {gate:?}]\n{assertions}"
    );
    let group = group(&fleet, "web", "web.toml", &more);
    groups(
        &fleet,
        &[group.replace("timeout = \"800ms\"", "timeout = \"4s\"")],
    );
    fleet.write("web.toml.new", &fleet.text());
    (fleet, servers)
}

fn serve(servers: &[Server], message: &str) -> bool {
    let serves = |server: &Server| get(&server.url, "/").1.trim() == message;
    servers.iter().all(serves)
}

/// Starts a watch, changes the content, and kills the watch once its run has this event.
fn kill_at(fleet: &Fleet, content: Content, message: &str, event: &str) {
    let state = fleet.path("state");
    let mut watch = Watch::start(fleet, &["--debounce", "0s"]);
    let earlier = journal(&state);
    let file = match content {
        Content::Source => "web.toml.new",
        Content::Adopted => "web.toml",
    };
    replace(fleet, file, &config(message));
    let wanted = format!("\"event\":\"{event}\"");
    watch.until("the run has come that far", || {
        let new = journal(&state)
            .into_iter()
            .filter(|run| !earlier.contains(run));
        new.filter_map(|run| std::fs::read_to_string(run.join("events.jsonl")).ok())
            .any(|text| text.contains(&wanted))
    });
    watch.end(Signal::SIGKILL);
}

/// Starts the next watch, and checks that it leaves nothing to do.
fn repairs(fleet: &Fleet, servers: &[Server], message: &str, context: &str) {
    let watch = Watch::begin(fleet, &["--debounce", "0s"]);
    watch.until(context, || watch.succeeded() && serve(servers, message));
    drop(watch);
    let status = fleet.status();
    assert_eq!(
        status.code, 0,
        "{context}: {}\n{:#}",
        status.stderr, status.json
    );
}

#[test]
fn the_next_watch_repairs_a_run_that_was_killed_in_any_phase() {
    each(&[Content::Source, Content::Adopted], |content| {
        let (fleet, servers) = blind(*content, &format!("{EQUALS}{INCREASED}"));
        for (round, event) in FORWARD.iter().enumerate() {
            // An adopted content has no file to install.
            if *content == Content::Adopted && *event == "installed" {
                continue;
            }
            let message = format!("m{round}");
            kill_at(&fleet, *content, &message, event);
            let context = format!("{content:?}, killed at {event}");
            repairs(&fleet, &servers, &message, &context);
        }
    });
}

#[test]
fn the_next_watch_repairs_a_rollback_that_was_killed() {
    each(&["rollback_began", "gate"], |event| {
        let (fleet, servers) = blind(Content::Source, &format!("{EQUALS}{INCREASED}"));
        fleet.write("bad", "");
        kill_at(&fleet, Content::Source, "two", event);
        std::fs::remove_file(fleet.path("bad")).unwrap();
        repairs(&fleet, &servers, "two", &format!("killed at {event}"));
    });
}

#[test]
fn the_next_watch_installs_the_wanted_content_where_nothing_proves_the_rollback() {
    // The old text was served before as well, so it does not show that the rollback has ended.
    let (fleet, servers) = blind(Content::Source, EQUALS);
    kill_at(&fleet, Content::Source, "two", "intent");
    repairs(
        &fleet,
        &servers,
        "two",
        "killed at intent, proven by content",
    );
}
