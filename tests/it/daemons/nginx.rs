//! nginx.

use std::{path::PathBuf, process::Command};

use nix::sys::signal::Signal;

use super::{
    Daemon, acts, children, folder, free_port, listening, need, program, started,
    web::{FILE_ALONE, NGINX, OTHER_DIRECTORY, OTHER_FILE, Web, nginx, nginx_behind},
    words,
};
use crate::support::{until, write};

#[test]
fn good_changes_converge_once_without_a_dropped_request() {
    let Some(web) = nginx() else { return };
    acts::converges(&web, true);
}

#[test]
fn the_printed_kind_is_a_group() {
    let Some(web) = nginx() else { return };
    acts::copied(&web);
}

#[test]
fn a_config_that_the_validator_rejects_touches_nothing() {
    let Some(web) = nginx() else { return };
    web.fleet(&format!(
        "pid_file = \"{}\"",
        web.daemon.path("pid").display()
    ));
    acts::refuses(
        &web,
        &web.config("two")
            .replace("worker_connections", "worker_conections"),
        "unknown directive \"worker_conections\"",
    );
}

#[test]
fn a_config_with_a_taken_port_is_rolled_back() {
    let Some(web) = nginx() else { return };
    let (_taken, port) = acts::taken_port();
    acts::does_not_load(
        &web,
        &web.config("two").replace(
            "    location / ",
            &format!("    listen 127.0.0.1:{port};\n    location / "),
        ),
    );
}

#[test]
fn stopped_before_or_after_the_survey() {
    let Some(web) = nginx() else { return };
    acts::stopped_before(&web);
    acts::stopped_after(&web);
}

#[test]
fn stopped_until_the_rollback_begins() {
    let Some(web) = nginx() else { return };
    acts::stopped_until_the_undo(&web);
}

#[test]
fn killed_in_the_middle() {
    let Some(web) = nginx() else { return };
    acts::killed(&web);
}

#[test]
fn a_worker_with_an_open_connection_is_named() {
    let Some(web) = nginx() else { return };
    acts::drains(&web);
}

/// Starts nginx with a config that includes `etc/conf.d/*.conf` by its absolute path. Its word is
/// in `site.conf`.
fn split() -> Option<(Web, PathBuf)> {
    let web = nginx()?;
    let conf = web.daemon.path("etc/conf.d");
    std::fs::create_dir(&conf).unwrap();
    write(&conf.join("site.conf"), &site(&web, "one"));
    write(&web.file(), &main(&web));
    web.is_settled();
    web.daemon.signal(Signal::SIGHUP);
    until("it has taken the signal", || web.sighups() == 1);
    web.is_settled();
    Some((web, conf))
}

/// Returns the server block of its config.
fn server(web: &Web, word: &str) -> (String, String, String) {
    let all = web.config(word);
    let (before, rest) = all.split_once("  server {").unwrap();
    let (within, after) = rest.split_once("\n  }\n").unwrap();
    (
        before.to_owned(),
        format!("server {{{within}\n}}\n"),
        after.to_owned(),
    )
}

fn site(web: &Web, word: &str) -> String {
    server(web, word).1
}

fn main(web: &Web) -> String {
    let (before, _, after) = server(web, "");
    format!(
        "{before}  include {}/*.conf;\n{after}",
        web.daemon.path("etc/conf.d").display()
    )
}

#[test]
fn a_directory_of_includes_is_validated_and_replaced_as_one_target() {
    let Some((web, conf)) = split() else { return };
    web.fleet(&format!("config = \"{}\"", conf.display()));
    let new = web.daemon.path("new.d");
    std::fs::create_dir(&new).unwrap();
    let put = || web.daemon.broadcast(&["--config", new.to_str().unwrap()]);
    // The live directory would pass; the new one is validated.
    write(
        &new.join("site.conf"),
        &site(&web, "two").replace("location", "locatoin"),
    );
    let (stand, names) = (web.stand(), names(&conf));
    let result = put().expect(4);
    assert!(
        result.stderr.contains("unknown directive \"locatoin\""),
        "{}",
        result.stderr
    );
    assert!(
        result.stderr.contains(conf.to_str().unwrap()),
        "{}",
        result.stderr
    );
    assert_eq!(
        (web.stand(), self::names(&conf), text(&conf)),
        (stand, names, site(&web, "one"))
    );
    write(&new.join("site.conf"), &site(&web, "two"));
    write(&new.join("more.conf"), "# more\n");
    assert_eq!(put().expect(0).states(), ["confirmed"]);
    assert_eq!(
        (web.word().as_deref(), self::names(&conf)),
        (Some("two"), vec!["more.conf".into(), "site.conf".into()])
    );
    assert_eq!(put().expect(0).states(), ["unchanged"]);
    assert_eq!(web.sighups(), 2);
}

#[test]
fn a_file_and_a_directory_are_validated_and_replaced_together() {
    let Some((web, conf)) = split() else { return };
    web.fleet(&format!(
        "config = [[\"{{arg:-c}}\"], [\"{}\"]]",
        conf.display()
    ));
    let new = web.daemon.path("new.d");
    std::fs::create_dir_all(new.join("conf.d")).unwrap();
    let put = || web.daemon.broadcast(&["--config", new.to_str().unwrap()]);
    // Each passes with the other live target, and not with the other new one.
    let log = |name: &str| format!("log_format {name} '$uri';\n");
    write(
        &new.join("nginx.conf"),
        &main(&web).replace("  include", &format!("  {}  include", log("one"))),
    );
    write(
        &new.join("conf.d/site.conf"),
        &(log("one") + &site(&web, "two")),
    );
    let stand = web.stand();
    let result = put().expect(4);
    assert!(
        result
            .stderr
            .contains("duplicate \"log_format\" name \"one\""),
        "{}",
        result.stderr
    );
    assert_eq!((web.stand(), text(&conf)), (stand, site(&web, "one")));
    write(
        &new.join("conf.d/site.conf"),
        &(log("two") + &site(&web, "two")),
    );
    assert_eq!(put().expect(0).states(), ["confirmed"]);
    assert_eq!(
        (
            web.word().as_deref(),
            web.stand().text.contains("log_format one")
        ),
        (Some("two"), true)
    );
    // A config that does not load is rolled back as a whole.
    let (_taken, port) = acts::taken_port();
    web.fleet(&format!(
        "config = [[\"{{arg:-c}}\"], [\"{}\"]]\ntimeout = \"1500ms\"",
        conf.display()
    ));
    write(&new.join("nginx.conf"), &main(&web));
    write(
        &new.join("conf.d/site.conf"),
        &site(&web, "three").replace(
            "    location / ",
            &format!("    listen 127.0.0.1:{port};\n    location / "),
        ),
    );
    web.is_settled();
    let stand = web.stand();
    assert_eq!(put().expect(6).states(), ["reverted"]);
    assert_eq!(
        (web.word().as_deref(), text(&conf), web.stand().text),
        (Some("two"), log("two") + &site(&web, "two"), stand.text)
    );
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn text(conf: &std::path::Path) -> String {
    std::fs::read_to_string(conf.join("site.conf")).unwrap()
}

#[test]
fn an_nginx_with_private_mounts_is_refused() {
    // Mounts a single directory, as FILE_ALONE mounts a file.
    const DIRECTORY_ALONE: &str = "mkdir etc/conf.d kept; mount --bind etc/conf.d kept; cp etc/nginx.conf kept.conf
mount -t tmpfs none etc; mkdir etc/conf.d; mount --bind kept etc/conf.d; cp kept.conf etc/nginx.conf";
    for (mounts, target, word) in [
        (OTHER_DIRECTORY, "etc/nginx.conf", "other"),
        (OTHER_DIRECTORY, "etc", "other"),
        (OTHER_FILE, "etc/nginx.conf", "other"),
        (OTHER_FILE, "etc", "other"),
        (FILE_ALONE, "etc/nginx.conf", "one"),
        (FILE_ALONE, "etc", "one"),
        (DIRECTORY_ALONE, "etc/conf.d", "one"),
    ] {
        let Some(web) = nginx_behind(mounts) else {
            return;
        };
        let target = web.daemon.path(target);
        web.fleet(&format!("config = \"{}\"", target.display()));
        let new = web.daemon.path("new");
        if target.is_dir() {
            std::fs::create_dir(&new).unwrap();
        }
        write(
            &if target.is_dir() {
                new.join("nginx.conf")
            } else {
                new.clone()
            },
            &web.config("two"),
        );
        let stand = web.stand();
        let result = web
            .daemon
            .broadcast(&["--config", new.to_str().unwrap()])
            .expect(5);
        assert!(
            result.stderr.contains(&format!("pid {}", web.daemon.pid())),
            "{mounts}: {}",
            result.stderr
        );
        assert!(
            result.stderr.contains("mount"),
            "{mounts}: {}",
            result.stderr
        );
        assert_eq!(
            (result.states(), web.word().as_deref(), web.stand()),
            (vec!["refused"], Some(word), stand),
            "{mounts}"
        );
    }
}

#[test]
fn two_masters_are_refused_by_name() {
    if !need("nginx") {
        return;
    }
    let (dir, port) = (folder(), free_port());
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    let config = write(
        &dir.path().join("etc/nginx.conf"),
        &(NGINX.text)(dir.path(), port, "one"),
    );
    // While its first parent is alive, nginx accepts no upgrade.
    let script = "(\"$0\" -p . -c \"$1\" & until [ -s pid ]; do sleep 0.02; done); exec sleep 600";
    let daemon = Daemon::spawn(
        dir,
        Command::new("sh")
            .args(["-c", script])
            .arg(program("nginx").unwrap())
            .arg(&config),
    );
    let master = || {
        std::fs::read_to_string(daemon.path("pid"))
            .ok()?
            .trim()
            .parse::<i32>()
            .ok()
    };
    let runs = || {
        master().filter(|pid| {
            children(*pid)
                .iter()
                .filter(|pid| words(**pid).contains(&"worker".to_owned()))
                .count()
                == 2
        })
    };
    until("it runs", || runs().is_some());
    let old = runs().unwrap();
    until("its first parent is gone", || daemon.children().is_empty());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), Signal::SIGUSR2).unwrap();
    until("the new one runs", || runs().is_some_and(|new| new != old));
    let new = runs().unwrap();
    daemon.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"web\"\nkind = \"nginx\"\nmatch = {}\n",
            (NGINX.matching)(daemon.dir.path(), port)
        ),
    );
    let text = daemon.write("new", &(NGINX.text)(daemon.dir.path(), port, "two"));
    let workers = (children(old), children(new));
    let result = daemon
        .broadcast(&["--config", text.to_str().unwrap()])
        .expect(5);
    for text in [
        format!("pid {old} is being upgraded: pid {new}"),
        format!("pid {new} is being upgraded: pid {old}"),
    ] {
        assert!(result.stderr.contains(&text), "{}", result.stderr);
    }
    assert_eq!(
        (result.states(), (children(old), children(new))),
        (vec!["refused", "refused"], workers)
    );
    let log = std::fs::read_to_string(daemon.path("error.log")).unwrap();
    assert!(!log.contains("SIGHUP"), "{log}");
    assert!(
        std::fs::read_to_string(config)
            .unwrap()
            .contains("return 200 one;"),
        "{log}"
    );
}

#[test]
fn workers_that_lost_their_master_are_refused_by_name() {
    let Some(web) = nginx() else { return };
    web.fleet("");
    let workers = web.daemon.children();
    let since: Vec<_> = workers.iter().map(|pid| started(*pid)).collect();
    web.daemon.signal(Signal::SIGKILL);
    until("the master is gone", || !web.daemon.runs());
    let new = web.daemon.write("new", &web.config("two"));
    let result = web
        .daemon
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(5);
    for pid in &workers {
        assert!(
            result
                .stderr
                .contains(&format!("pid {pid} is a worker whose master is gone")),
            "{}",
            result.stderr
        );
    }
    assert_eq!(
        (result.states(), web.word().as_deref()),
        (vec!["refused", "refused"], Some("one"))
    );
    assert_eq!(
        workers.iter().map(|pid| started(*pid)).collect::<Vec<_>>(),
        since
    );
    assert!(workers.iter().all(|pid| !listening(*pid).is_empty()));
    assert!(!web.was_a_worker_struck());
}

#[test]
fn an_old_worker_that_still_listens_is_a_foreign_listener() {
    let Some(web) = nginx() else { return };
    acts::old_one_listens(&web);
}
