//! php-fpm, which executes itself on SIGUSR2. Its command line is a title.

use std::io::{Read, Write};

use super::{
    Daemon, acts, command, folder, free_port, need, started,
    web::{Sort, Web, connect},
};
use crate::support::{until, write};

/// Its program in Debian 12.
const PROGRAM: &str = "php-fpm8.2";

static PHP_FPM: Sort = Sort {
    kind: "php-fpm",
    matching: |dir, _| {
        format!(
            "{{ exe = \"{PROGRAM}\", args = [\"({}/fpm.conf)\"] }}",
            dir.display()
        )
    },
    tells: ("error.log", "Reloading in progress"),
    struck: None,
    workers: 2,
    file: "fpm.conf",
    text: |dir, port, word| {
        let dir = dir.display();
        let user = if nix::unistd::geteuid().is_root() {
            "user = www-data\ngroup = www-data\n"
        } else {
            ""
        };
        // A worker has this time for its last request.
        format!(
            "[global]\nerror_log = {dir}/error.log\nprocess_control_timeout = 20s\n[www]\n{user}listen = 127.0.0.1:{port}\n\
             pm = static\npm.max_children = 2\nping.path = /ping\nping.response = {word}\n"
        )
    },
    ask: ping,
    open: "",
};

/// Returns a record of FastCGI.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = [1, kind, 0, 1, length[0], length[1], 0, 0];
    [&head[..], content].concat()
}

/// Returns the answer to a ping, which is the word of the config.
fn ping(port: u16) -> Option<String> {
    let pair = |name: &str, value: &str| {
        let lengths = [name.len(), value.len()].map(|n| u8::try_from(n).unwrap());
        [&lengths[..], name.as_bytes(), value.as_bytes()].concat()
    };
    let parameters = [
        pair("REQUEST_METHOD", "GET"),
        pair("SCRIPT_NAME", "/ping"),
        pair("SCRIPT_FILENAME", "/ping"),
    ]
    .concat();
    let begin = record(1, &[0, 1, 0, 0, 0, 0, 0, 0]);
    let request = [
        begin,
        record(4, &parameters),
        record(4, &[]),
        record(5, &[]),
    ]
    .concat();
    let mut stream = connect(port)?;
    stream.write_all(&request).ok()?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(record_of(&answer, 6)?).into_owned();
    let (_, body) = text.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

/// Returns the content of the first record of this kind.
fn record_of(mut answer: &[u8], kind: u8) -> Option<&[u8]> {
    loop {
        let (head, rest) = answer.split_at_checked(8)?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (content, rest) = rest.split_at_checked(length)?;
        if head[1] == kind {
            return Some(content);
        }
        answer = rest.get(usize::from(head[6])..)?;
    }
}

/// Starts php-fpm with two workers.
fn php_fpm() -> Option<Web> {
    need(PROGRAM).then(|| {
        let (dir, port) = (folder(), free_port());
        let config = write(
            &dir.path().join(PHP_FPM.file),
            &(PHP_FPM.text)(dir.path(), port, "one"),
        );
        let mut command = command(PROGRAM);
        command.arg("-F").arg("-y").arg(config);
        Web::start(&PHP_FPM, port, Daemon::spawn(dir, &mut command))
    })
}

/// Returns a config that `php-fpm -t` passes and that php-fpm cannot serve.
fn with_a_port(web: &Web, port: u16) -> String {
    let text = web.config("three");
    let (_, pool) = text.split_once("[www]").unwrap();
    let other = pool.replace(&web.port.to_string(), &port.to_string());
    format!("{text}[other]{other}")
}

#[test]
fn good_changes_converge_once_without_a_dropped_request() {
    let Some(web) = php_fpm() else { return };
    acts::converges(&web, true);
}

#[test]
fn the_printed_kind_is_a_group() {
    let Some(web) = php_fpm() else { return };
    acts::copied(&web);
}

#[test]
fn a_config_that_the_validator_rejects_touches_nothing() {
    let Some(web) = php_fpm() else { return };
    web.fleet("");
    let good = web.config("two");
    acts::refuses(&web, &(good.clone() + "nonsense = 1\n"), "unknown entry");
    acts::refuses(&web, &good.replace("pm = static", ""), "process manager");
}

#[test]
fn a_taken_port_ends_php_fpm_and_its_title_hides_the_command() {
    let Some(web) = php_fpm() else { return };
    web.fleet("");
    let before = std::fs::read_to_string(web.file()).unwrap();
    let (_taken, port) = acts::taken_port();
    let result = web.broadcast_config(&with_a_port(&web, port)).expect(7);
    let one = acts::only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["start"].is_null()),
        (&"died".into(), &true)
    );
    assert_eq!(std::fs::read_to_string(web.file()).unwrap(), before);
    assert!(!web.daemon.runs());
}

#[test]
fn a_taken_port_ends_php_fpm_and_it_is_revived() {
    let Some(web) = php_fpm() else { return };
    let (_taken, port) = acts::taken_port();
    let file = web.file().display().to_string();
    web.fleet(&format!(
        "revive = [\"{{exe}}\", \"-F\", \"-y\", \"{file}\"]"
    ));
    let result = web.broadcast_config(&with_a_port(&web, port)).expect(6);
    let one = acts::only_instance(&result);
    assert_eq!(
        (&one["outcome"], &one["successor_of"]),
        (&"reverted".into(), &web.daemon.pid().into())
    );
    let new = i32::try_from(one["pid"].as_i64().unwrap()).unwrap();
    assert!(started(new).is_some(), "{one:#}");
    assert_eq!(web.word().as_deref(), Some("one"));
}

/// The master becomes a daemon again, and so another process.
#[test]
fn a_master_that_becomes_another_process_is_followed() {
    if !need(PROGRAM) {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let daemonized = |word: &str| {
        let pid = format!("daemonize = yes\npid = {}/pid\n[www]", dir.path().display());
        (PHP_FPM.text)(dir.path(), port, word).replace("[www]", &pid)
    };
    let two = daemonized("two");
    let config = write(&dir.path().join(PHP_FPM.file), &daemonized("one"));
    let started = command(PROGRAM).arg("-y").arg(&config).status().unwrap();
    assert!(started.success(), "{started:?}");
    // It ends what names the folder when the test ends.
    let rest = Daemon::spawn(dir, std::process::Command::new("sleep").arg("600"));
    until("it answers", || ping(port).as_deref() == Some("one"));
    let group = (PHP_FPM.matching)(rest.dir.path(), port);
    rest.write(
        "fleet.toml",
        &format!("version = 1\n[[group]]\nname = \"one\"\nkind = \"php-fpm\"\nmatch = {group}\n"),
    );
    let new = rest.write("new", &two);
    let result = rest
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    let one = acts::only_instance(&result);
    assert_eq!(one["outcome"], "confirmed", "{one:#}");
    assert!(one["successor_of"].is_number(), "{one:#}");
    assert_eq!(ping(port).as_deref(), Some("two"));
}

#[test]
fn stopped_before_or_after_the_survey() {
    let Some(web) = php_fpm() else { return };
    acts::stopped_before(&web);
    acts::stopped_after(&web);
}

#[test]
fn stopped_until_the_rollback_begins() {
    let Some(web) = php_fpm() else { return };
    acts::stopped_until_the_undo_within(&web, "4s");
}

#[test]
fn killed_in_the_middle() {
    let Some(web) = php_fpm() else { return };
    acts::killed(&web);
}
