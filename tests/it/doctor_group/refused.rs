//! Processes of which no group is written, and why.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{append, counter, outcome};
use crate::{
    daemons::{Daemon, folder, free_port, need, words},
    support::{Fleet, Killed, install_program, until, write},
};

fn hello(args: &[&str]) -> Command {
    let mut hello = Command::new(env!("CARGO_BIN_EXE_hello"));
    hello
        .args(args)
        .env_remove("HELLO_FLEET")
        .current_dir("/proc/self");
    hello
}

#[test]
fn a_process_of_a_group_has_one_already() {
    let fleet = Fleet::start(1);
    let mut doctor = fleet.read_only("doctor");
    doctor.args([&fleet.pid(0).to_string(), "--group"]);
    let (code, out, err) = outcome(&mut doctor);
    assert_eq!((code, out.as_str()), (Some(5), ""), "{err}");
    assert!(err.contains("no group is written for pid"), "{err}");
    assert!(err.contains("group `web`"), "{err}");
}

#[test]
fn a_process_of_a_kind_has_the_group_of_that() {
    let fleet = Fleet::start(1);
    let pid = fleet.pid(0).to_string();
    // The kind matches a server by its name, which the copy does not have.
    let config = fleet.path("web.toml");
    let server = Command::new(env!("CARGO_BIN_EXE_hello"))
        .args(["serve", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .spawn();
    let server = Killed(server.unwrap());
    until("it runs", || {
        words(i32::try_from(server.id()).unwrap()).len() > 2
    });
    let (code, out, err) = outcome(&mut hello(&["doctor", &server.id().to_string(), "--group"]));
    assert_eq!((code, out.as_str()), (Some(5), ""), "{err}");
    assert!(err.contains("hello kinds hello"), "{err}");
    let (code, ..) = outcome(&mut hello(&["doctor", &pid, "--group"]));
    assert_eq!(code, Some(0));
}

#[test]
fn a_worker_names_the_process_that_takes_the_signal_for_it() {
    if !need("lighttpd") {
        return;
    }
    let dir = folder();
    let config = write(
        &dir.path().join("l.conf"),
        &format!(
            "server.document-root = \"{}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {}\n\
             server.max-worker = 2\n",
            dir.path().display(),
            free_port()
        ),
    );
    // No kind matches this name.
    let program = dir.path().join("webd");
    let script = "PATH=$PATH:/usr/sbin; command -v lighttpd";
    let (_, found, _) = outcome(Command::new("sh").args(["-c", script]));
    install_program(Path::new(found.trim()), &program);
    let mut webd = Command::new(program);
    let daemon = Daemon::spawn(dir, webd.arg("-D").arg("-f").arg(config));
    until("it has a worker", || !daemon.children().is_empty());
    let worker = daemon.children()[0];
    let written = append(worker, &daemon.path("fleet.toml")).expect(5);
    assert_eq!(written.text, "");
    let master = daemon.pid();
    let why = format!("is a worker of pid {master}");
    assert!(written.stderr.contains(&why), "{}", written.stderr);
    let next = format!("hello doctor {master} --group");
    assert!(written.stderr.contains(&next), "{}", written.stderr);
    let written = append(master, &daemon.path("fleet.toml")).expect(0);
    assert!(
        written.text.contains("# workers = true"),
        "{}",
        written.text
    );
}

#[test]
fn this_very_program_has_no_group() {
    let mut shell = Command::new("sh");
    let script = "exec \"$0\" doctor $$ --group";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_hello")]);
    let (code, out, err) = outcome(shell.env_remove("HELLO_FLEET").current_dir("/proc/self"));
    assert_eq!((code, out.as_str()), (Some(5), ""), "{err}");
    assert!(err.contains("is this very program"), "{err}");
}

#[test]
fn an_interpreter_without_a_script_has_no_group() {
    let mut shell = Command::new("sh");
    let shell = Killed(shell.stdin(Stdio::piped()).spawn().unwrap());
    until("it runs", || {
        words(i32::try_from(shell.id()).unwrap()) == ["sh"]
    });
    let (code, out, err) = outcome(&mut hello(&["doctor", &shell.id().to_string(), "--group"]));
    assert_eq!((code, out.as_str()), (Some(5), ""), "{err}");
    assert!(err.contains("interpreter without a script"), "{err}");
}

#[test]
fn an_ended_process_and_no_process_are_told_apart_from_a_refusal() {
    let mut ended = Command::new("true").spawn().unwrap();
    let zombie = ended.id().to_string();
    until("it has ended", || {
        fs::read_to_string(format!("/proc/{zombie}/stat"))
            .unwrap()
            .contains(") Z ")
    });
    let (code, out, err) = outcome(&mut hello(&["doctor", &zombie, "--group"]));
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    assert!(err.contains("runs no program"), "{err}");
    ended.wait().unwrap();
    let (code, ..) = outcome(&mut hello(&["doctor", "999999999", "--group"]));
    assert_eq!(code, Some(3));
    let (code, _, err) = outcome(&mut hello(&["doctor", "--group"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("name its PID"), "{err}");
}

#[test]
fn a_process_that_another_user_may_not_inspect_has_no_group() {
    if !crate::support::runs_as_root("only root can run `hello` as another user") {
        return;
    }
    let daemon = counter(&[]);
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    other.args([env!("CARGO_BIN_EXE_hello"), "doctor"]);
    other.args([&daemon.pid().to_string(), "--group"]);
    let (code, out, err) = outcome(other.env_remove("HELLO_FLEET").current_dir("/proc/self"));
    assert_eq!((code, out.as_str()), (Some(5), ""), "{err}");
    assert!(err.contains("run hello as root"), "{err}");
}
