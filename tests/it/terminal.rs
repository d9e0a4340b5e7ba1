//! Text from another user, process or file neither controls the operator's terminal nor imitates a
//! line of `hello`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Child, Command, Stdio},
    thread,
};

use nix::sys::signal::Signal;

use crate::support::{Fleet, get, until};

/// Control sequences, hidden characters, and a line that imitates this program.
const FORGED: &str = "x\x1b[2J\u{9b}1A\u{202e}\u{200b}\x07\r   Confirmed [   0.001s] forged\n   Confirmed [   0.002s] forged\nerror: forged\nhello run-as: forged";

/// A process. Killed by its pid when dropped.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the text of both outputs of a command.
fn shown(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// Checks that the output has nothing forbidden. It must have `word`, which shows that the text
/// arrived.
fn is_harmless(text: &str, word: &str) {
    assert!(text.contains(word), "{text}");
    let unsafe_ = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    assert!(!text.contains(unsafe_), "{text:?}");
    for line in text.lines() {
        let begins = |forged: &str| line.trim_start().starts_with(forged);
        assert!(
            !begins("Confirmed [   0.001s] forged"),
            "{line:?} of\n{text}"
        );
        assert!(
            !begins("Confirmed [   0.002s] forged"),
            "{line:?} of\n{text}"
        );
        assert!(!begins("error: forged"), "{line:?} of\n{text}");
        assert!(!begins("hello run-as: forged"), "{line:?} of\n{text}");
    }
}

/// Writes a script that prints `text` and exits with `code`.
fn script(fleet: &Fleet, name: &str, text: &str, code: u8) -> String {
    fleet.write(&format!("{name}.txt"), text);
    let path = fleet.write(
        name,
        &format!(
            "#!/bin/sh\ncat '{}'\nexit {code}\n",
            fleet.path(&format!("{name}.txt")).display()
        ),
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().into()
}

fn add(fleet: &Fleet, more: &str) {
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &(text + more));
}

#[test]
fn the_output_of_a_validator_is_marked_as_its_own() {
    let fleet = Fleet::start(1);
    let validator = script(&fleet, "judge", FORGED, 1);
    add(
        &fleet,
        &format!("validate = [{validator:?}, \"{{candidate}}\"]\n"),
    );
    is_harmless(
        &shown(&mut fleet.command(&["--validate", "--set", "message=two"])),
        "forged",
    );
    is_harmless(
        &shown(
            fleet
                .read_only("status")
                .arg("--state")
                .arg(fleet.path("state")),
        ),
        "forged",
    );
    is_harmless(&shown(&mut fleet.read_only("doctor")), "forged");
    let json = fleet
        .broadcast(&["--validate", "--set", "message=two"])
        .expect(5)
        .json;
    assert!(
        json["reason"].as_str().unwrap().contains("forged"),
        "JSON says it as well: {json:#}"
    );
}

#[test]
fn the_output_of_a_gate_is_marked_as_its_own_in_run_and_history() {
    let fleet = Fleet::start(1);
    let gate = script(&fleet, "gate", FORGED, 3);
    add(&fleet, &format!("[group.rollout]\ngate = [{gate:?}]\n"));
    is_harmless(
        &shown(&mut fleet.command(&["--set", "message=two", "--reason", FORGED])),
        "forged",
    );
    let history = |args: &[&str]| {
        shown(
            Command::new(fleet.exe())
                .arg("history")
                .args(args)
                .arg("--state")
                .arg(fleet.path("state")),
        )
    };
    is_harmless(&history(&[]), "forged");
    let list = history(&[]);
    let row = list.lines().nth(1).unwrap();
    is_harmless(&history(&[row.split(' ').next().unwrap()]), "forged");
}

/// Starts a server that answers every request with `body`, and returns its address.
fn answers(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut piece = [0; 4096];
            let _ = stream.read(&mut piece);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}/")
}

/// Returns the output of `status` if the first server reports `told`.
fn status_of(fleet: &Fleet, change: impl Fn(&mut serde_json::Value)) -> String {
    let mut told = serde_json::from_str(&get(fleet.url(0), "/-/config").1).unwrap();
    change(&mut told);
    let url = answers(told.to_string());
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    let group = format!(
        "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\nmatch = {{ exe = {name:?} }}\ninstances = [{{ pid = {}, endpoint = {url:?} }}]\n",
        fleet.pid(0)
    );
    let path = fleet.write("told.toml", &group);
    shown(
        Command::new(fleet.exe())
            .args(["status", "--fleet"])
            .arg(path)
            .arg("--state")
            .arg(fleet.path("state")),
    )
}

#[test]
fn an_invalid_digest_is_not_shown() {
    let fleet = Fleet::start(1);
    let text = status_of(&fleet, |_| {});
    let is_believed = |line: &str| line.starts_with("ok ") && line.contains(" generation 1 ");
    assert!(text.lines().any(is_believed), "as it is: {text}");
    for (which, digest) in [
        ("effective", FORGED),
        ("last_attempt", FORGED),
        ("effective", "abc"),
        ("effective", &"A".repeat(64)),
    ] {
        let text = status_of(&fleet, |told| told[which]["sha256"] = digest.into());
        is_harmless(&text, "does not speak hello");
    }
}

#[test]
fn an_excessively_nested_answer_is_no_answer() {
    let fleet = Fleet::start(1);
    let name = fleet.exe().file_name().unwrap().to_str().unwrap();
    for before in [
        "",
        "{\"deep\":",
        "{\"restart_only\":{\"a\":",
        "{\"instance\":",
    ] {
        let url = answers(before.to_owned() + &"[".repeat(900_000));
        let group = "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\n";
        let path = fleet.write("deep.toml", &format!("{group}match = {{ exe = {name:?} }}\ninstances = [{{ pid = {}, endpoint = {url:?} }}]\n", fleet.pid(0)));
        let text = shown(
            Command::new(fleet.exe())
                .args(["status", "--fleet"])
                .arg(path)
                .arg("--state")
                .arg(fleet.path("state")),
        );
        assert!(text.contains("does not speak hello"), "{before}: {text}");
    }
}

#[test]
fn control_characters_in_names_and_keys_are_escaped() {
    let fleet = Fleet::start(1);
    let name = fleet
        .exe()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let quoted = serde_json::to_string(FORGED)
        .unwrap()
        .replace("\u{9b}", "\\u009b")
        .replace('\u{202e}', "\\u202e")
        .replace('\u{200b}', "\\u200b");
    let group = |more: &str| {
        format!(
            "version = 1\n[[group]]\nname = {quoted}\nkind = \"hello\"\nmatch = {{ exe = {name:?}, args = [\"serve\"] }}\n{more}"
        )
    };
    for more in [
        "",
        "after = \"none\"\n",
        "count = 7\n",
        &format!("{quoted} = 1\n"),
    ] {
        fleet.write("fleet.toml", &group(more));
        is_harmless(
            &shown(&mut fleet.command(&["--dry-run", "--set", "message=two"])),
            if more.starts_with('"') {
                "unknown field"
            } else {
                "forged"
            },
        );
        is_harmless(&shown(fleet.read_only("doctor").arg("nobody")), "error: ");
    }
    fleet.write("fleet.toml", &group(""));
    is_harmless(
        &shown(&mut fleet.command(&["--set", "message=two"])),
        "forged",
    );
    is_harmless(
        &shown(
            fleet
                .read_only("status")
                .arg("--state")
                .arg(fleet.path("state")),
        ),
        "forged",
    );
}

#[test]
fn a_difference_is_quoted_line_by_line() {
    let fleet = Fleet::start(1);
    let config =
        fleet.write("new.toml", "# \u{202e}\u{200b}   Confirmed [   0.001s] forged\n   # error: forged\nmessage = \"two\"\nlisten = \"127.0.0.1:0\"\n");
    let text = shown(&mut fleet.command(&["--dry-run", "--config", config.to_str().unwrap()]));
    is_harmless(&text, "\\u{202e}\\u{200b}");
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.contains("--- now"))
        .take_while(|line| !line.starts_with("wave"))
        .collect();
    assert!(lines.len() > 5, "{text}");
    assert!(lines.iter().all(|line| line.starts_with("  | ")), "{text}");
}

#[test]
fn the_command_line_of_a_lock_holder_is_escaped() {
    let fleet = Fleet::start(1);
    let holder = Command::new("flock")
        .arg0(FORGED)
        .arg(fleet.dir.path())
        .args(["sleep", "600"])
        .spawn();
    let Ok(holder) = holder else {
        return crate::support::skipped("no flock(1)");
    };
    let holder = Kept(holder);
    let pid = holder.0.id();
    // Its child inherits the lock; both end with the test.
    let child = || {
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap()
            .trim()
            .parse::<i32>()
            .ok()
    };
    until("it holds the lock", || child().is_some());
    let text = shown(&mut fleet.command(&["--set", "message=two"]));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    is_harmless(&text, "forged");
}

#[test]
fn control_characters_in_arguments_and_environment_are_escaped() {
    let fleet = Fleet::start(0);
    let hello = || Command::new(fleet.exe());
    is_harmless(
        &shown(
            hello()
                .args(["broadcast", FORGED, "--fleet"])
                .arg(fleet.path("fleet.toml")),
        ),
        "forged",
    );
    is_harmless(&shown(hello().args(["status", "-o", FORGED])), "forged");
    is_harmless(
        &shown(hello().arg("status").env("HELLO_FLEET", FORGED)),
        "forged",
    );
    is_harmless(&shown(hello().arg("check").arg(FORGED)), "forged");
    is_harmless(&shown(hello().arg("kinds").arg(FORGED)), "forged");
    is_harmless(
        &shown(
            hello()
                .args(["history", FORGED])
                .arg("--state")
                .arg(fleet.dir.path()),
        ),
        "forged",
    );
    is_harmless(
        &shown(
            hello()
                .args(["forget", FORGED])
                .arg("--state")
                .arg(fleet.dir.path()),
        ),
        "forged",
    );
    is_harmless(
        &shown(
            hello()
                .args(["resume", FORGED])
                .arg("--state")
                .arg(fleet.dir.path()),
        ),
        "forged",
    );
    is_harmless(
        &shown(hello().args(["serve", "--listen", FORGED, "--config", "x"])),
        "forged",
    );
}

#[test]
fn the_server_log_has_one_line_per_entry() {
    let fleet = Fleet::start(0);
    let quoted = "\"k\\u001b[2J\\u202e\\n   Confirmed forged\\nerror: forged\" = 1\n";
    let mut server = Kept(
        Command::new(fleet.exe())
            .args(["serve", "--config"])
            .arg(fleet.path("web.toml"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut url = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    fleet.write("web.toml", &format!("message = \"one\"\n{quoted}"));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(server.0.id()).unwrap()),
        Signal::SIGHUP,
    )
    .unwrap();
    until("it looked", || {
        get(url.trim(), "/-/config").1.contains("rejected")
    });
    server.0.kill().unwrap();
    let mut log = String::new();
    server
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    is_harmless(&log, "the old config stays in use");
}
