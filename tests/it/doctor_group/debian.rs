//! Daemons of Debian that no kind knows. Their groups are what `hello doctor PID --group` writes,
//! and the lines that an operator types. A good change is proven, and a bad one never is.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown},
};

use super::{Written, append};
use crate::{
    daemons::{Daemon, command, folder, free_port, need},
    support::{CommandResult, runs_as_root, until, write},
};

/// The longest wait for one answer of a daemon.
const ANSWER: Duration = Duration::from_secs(10);

/// The line that says that nothing shows a reload yet.
const CONFIRM: &str = "confirm = []";
/// The line that declares that the program reloads, which the operator decides about.
const RELOADS: &str = "# reloads = true";

/// Writes the group of a daemon, and replaces the texts that an operator types.
fn group(daemon: &Daemon, typed: &[(&str, &str)]) -> Written {
    let file = daemon.path("fleet.toml");
    let written = append(daemon.pid(), &file).expect(0);
    let mut text = written.text.clone();
    for (from, to) in typed {
        assert_eq!(text.matches(from).count(), 1, "{from}:\n{text}");
        text = text.replace(from, to);
    }
    write(&file, &text);
    written
}

fn change(daemon: &Daemon, text: &str) -> CommandResult {
    let candidate = daemon.write("new", text);
    let candidate = candidate.to_str().unwrap();
    daemon.broadcast(&["--config", candidate, "--timeout", "20s"])
}

/// Waits until a daemon answers a word.
fn answers(daemon: &Daemon, asked: &impl Fn() -> String, word: &str) {
    until("it answers the word", || {
        assert!(daemon.runs(), "it ended: {}", daemon.log());
        asked() == word
    });
}

/// Checks that a good config is proven and served, and that a bad one ends with `code` and leaves
/// the good one. `asked` returns what the daemon answers to others.
fn good_and_bad(daemon: &Daemon, asked: impl Fn() -> String, (good, bad): (&str, &str), code: i32) {
    let result = change(daemon, good).expect(0);
    assert_eq!(result.states(), ["confirmed"]);
    answers(daemon, &asked, "two");
    change(daemon, bad).expect(code);
    answers(daemon, &asked, "two");
}

/// Returns the first line that a server sends; empty without one.
fn greeting(port: u16) -> String {
    let read = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    };
    read().unwrap_or_default()
}

/// Returns the output of a command; empty if it fails.
fn output(program: &str, args: &[&str]) -> String {
    let output = command(program).args(args).output();
    let output = output.ok().filter(|output| output.status.success());
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// Returns the only one of the words that a text has; empty if there is none, or several.
fn word_in(text: &str) -> String {
    let words = ["one", "two", "three"];
    let mut found = words.iter().filter(|word| text.contains(**word));
    match (found.next(), found.next()) {
        (Some(word), None) => (*word).to_owned(),
        _ => String::new(),
    }
}

#[test]
fn tinyproxy_reloads_by_a_written_group() {
    if !(need("tinyproxy") && need("curl")) {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let log = dir.path().join("t.log");
    let text = |host: &str| {
        format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 10\nAllow 127.0.0.1\n\
             StatHost \"{host}.test\"\nLogFile \"{}\"\n",
            log.display()
        )
    };
    let config = write(&dir.path().join("t.conf"), &text("one"));
    let mut tinyproxy = command("tinyproxy");
    let daemon = Daemon::spawn(dir, tinyproxy.arg("-d").arg("-c").arg(config));
    let proxy = format!("http://127.0.0.1:{port}");
    let page = |host: &str| {
        let url = format!("http://{host}.test/");
        output(
            "curl",
            &[
                "-sf",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-x",
                &proxy,
                &url,
            ],
        )
    };
    let asked = || {
        let shown = ["one", "two", "three"]
            .into_iter()
            .filter(|host| page(host) == "200");
        shown.collect::<Vec<_>>().join(" ")
    };
    answers(&daemon, &asked, "one");
    let confirm = "[[group.confirm]]\nexec = [\"curl\", \"-s\", \"-o\", \"/dev/null\", \"-w\", \
                   \"%{http_code}\", \"-x\", \"http://{listen}/\", \"http://two.test/\"]\nchanged \
                   = true\n#";
    let written = group(&daemon, &[(CONFIRM, confirm)]);
    written.has(
        "signal",
        "\"SIGUSR1\"",
        "seen: ExecReload of tinyproxy.service",
    );
    written.has(
        "reloads",
        "true",
        "guessed: ExecReload of tinyproxy.service",
    );
    written.has("validate", "\"none\"", "guessed: none was found");
    written.has(
        "log",
        &format!("\"{}\"", daemon.path("t.log").display()),
        "seen",
    );
    let bad = format!("{}Bogus\n", text("three"));
    good_and_bad(&daemon, asked, (&text("two"), &bad), 6);
}

#[test]
fn bird_reloads_by_a_written_group() {
    if !(need("bird") && need("birdc")) {
        return;
    }
    let dir = folder();
    let (log, control) = (dir.path().join("bird.log"), dir.path().join("ctl"));
    let text = |word: &str| {
        format!(
            "router id 192.0.2.1;\nlog \"{}\" all;\nprotocol device {{ }}\n\
             protocol static {word} {{ ipv4; route 192.0.2.0/24 blackhole; }}\n",
            log.display()
        )
    };
    let config = write(&dir.path().join("b.conf"), &text("one"));
    let mut bird = command("bird");
    let bird = bird.arg("-f").arg("-c").arg(config).arg("-s").arg(&control);
    let daemon = Daemon::spawn(dir, bird);
    let asked = || {
        let all = output(
            "birdc",
            &["-s", control.to_str().unwrap(), "show", "protocols"],
        );
        word_in(&all)
    };
    answers(&daemon, &asked, "one");
    let confirm = format!(
        "[[group.confirm]]\nlog = \"{}\"\ncontains = \"Reconfigured\"\n#",
        daemon.path("bird.log").display()
    );
    let written = group(&daemon, &[(RELOADS, "reloads = true"), (CONFIRM, &confirm)]);
    assert!(
        written.text.contains("# reload_by = [\"/usr/sbin/birdc\""),
        "{}",
        written.text
    );
    let bad = format!("{}bogus;\n", text("three"));
    good_and_bad(&daemon, asked, (&text("two"), &bad), 6);
}

#[test]
fn stunnel_reloads_by_a_written_group() {
    if !need("stunnel4") {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let pem = dir.path().join("x.pem");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write(&pem, &(made.signing_key.serialize_pem() + &made.cert.pem()));
    fs::set_permissions(&pem, fs::Permissions::from_mode(0o600)).unwrap();
    let log = dir.path().join("st.log");
    let text = |word: &str| {
        format!(
            "foreground = yes\npid =\noutput = {}\n[x]\naccept = 127.0.0.1:{port}\ncert = {}\n\
             exec = /bin/echo\nexecArgs = echo {word}\n",
            log.display(),
            pem.display()
        )
    };
    let config = write(&dir.path().join("st.conf"), &text("one"));
    let daemon = Daemon::spawn(dir, command("stunnel4").arg(config));
    let script = "import socket, ssl, sys\ncontext = ssl._create_unverified_context()\nplain = \
                  socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)\n\
                  print(context.wrap_socket(plain).recv(64).decode())";
    let asked = || output("python3", &["-c", script, &port.to_string()]);
    answers(&daemon, &asked, "one");
    let confirm = format!(
        "[[group.confirm]]\nlog = \"{}\"\ncontains = \"Configuration successful\"\n#",
        daemon.path("st.log").display()
    );
    group(&daemon, &[(RELOADS, "reloads = true"), (CONFIRM, &confirm)]);
    let bad = text("three").replace("[x]", "bogus = 1\n[x]");
    good_and_bad(&daemon, asked, (&text("two"), &bad), 6);
}

#[test]
fn monit_reloads_by_a_written_group() {
    if !(need("monit") && need("curl")) {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let path = dir.path().display().to_string();
    let text = |word: &str| {
        format!(
            "set daemon 5\nset log {path}/monit.log\nset pidfile {path}/pid\nset idfile \
             {path}/id\nset statefile {path}/st\nset httpd port {port} and use address \
             127.0.0.1 allow localhost\ncheck file {word} with path /etc/passwd\n"
        )
    };
    let config = write(&dir.path().join("m.conf"), &text("one"));
    // It reads no config that other users can read.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = Daemon::spawn(dir, command("monit").arg("-I").arg("-c").arg(config));
    let url = format!("http://127.0.0.1:{port}/_status?format=xml");
    let asked = || {
        let page = output("curl", &["-sf", &url]);
        let named = |word: &str| page.contains(&format!("<name>{word}</name>"));
        let words = ["one", "two", "three"]
            .into_iter()
            .filter(|word| named(word));
        words.collect::<Vec<_>>().join(" ")
    };
    answers(&daemon, &asked, "one");
    let confirm = "[[group.confirm]]\nhttp = \"http://{listen}/_status?format=xml\"\nregex = \
                   \"<name>(one|two|three)</name>\"\nchanged = true\n#";
    let typed = [("# validate = ", "validate = "), (CONFIRM, confirm)];
    let written = group(&daemon, &typed);
    written.has(
        "reloads",
        "true",
        "guessed: the action `reload` of /etc/init.d/monit",
    );
    let bad = format!("{}bogus\n", text("three"));
    good_and_bad(&daemon, asked, (&text("two"), &bad), 4);
}

#[test]
fn pgbouncer_reloads_by_a_written_group() {
    if !(need("pgbouncer") && need("psql") && runs_as_root("it leaves root for another user")) {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let postgres = User::from_name("postgres").unwrap().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    chown(&logs, Some(postgres.uid), Some(postgres.gid)).unwrap();
    let text = |most: u32, more: &str| {
        format!(
            "[databases]\nx = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\nlogfile = {}/pg.log\npidfile =\n\
             unix_socket_dir =\nadmin_users = a\nmax_client_conn = {most}\n{more}",
            logs.display()
        )
    };
    let config = write(&dir.path().join("p.ini"), &text(101, ""));
    let mut pgbouncer = command("pgbouncer");
    let daemon = Daemon::spawn(dir, pgbouncer.args(["-u", "postgres"]).arg(config));
    let port_text = port.to_string();
    let login = [
        "-h",
        "127.0.0.1",
        "-p",
        &port_text,
        "-U",
        "a",
        "pgbouncer",
        "-Atc",
    ];
    let asked = || {
        let all = output("psql", &[&login[..], &["SHOW CONFIG"]].concat());
        let line = all
            .lines()
            .find_map(|line| line.strip_prefix("max_client_conn|"));
        let most = line
            .unwrap_or_default()
            .split('|')
            .next()
            .unwrap_or_default();
        match most {
            "101" => "one".into(),
            "102" => "two".into(),
            other => other.to_owned(),
        }
    };
    answers(&daemon, &asked, "one");
    let confirm = "[[group.confirm]]\nexec = [\"psql\", \"-h\", \"127.0.0.1\", \"-p\", \
                   \"{listen.port}\", \"-U\", \"a\", \"pgbouncer\", \"-Atc\", \"SHOW \
                   CONFIG\"]\nregex = 'max_client_conn.([0-9]+)'\nchanged = true\n#";
    let written = group(&daemon, &[(CONFIRM, confirm)]);
    written.has(
        "reloads",
        "true",
        "guessed: ExecReload of pgbouncer.service",
    );
    let (good, bad) = (text(102, ""), text(103, "bogus = 1\n"));
    good_and_bad(&daemon, asked, (&good, &bad), 6);
}

/// A server that sends one word to each connection, until the test ends.
fn says(word: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(format!("{word}\n").as_bytes());
        }
    });
    port
}

/// Ends the process that a run has started again.
struct Revived(Option<i32>);

impl Drop for Revived {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn rinetd_reloads_by_a_written_group() {
    if !need("rinetd") {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let log = dir.path().join("r.log");
    let text = |to: &str| format!("127.0.0.1 {port} {to}\nlogfile {}\n", log.display());
    let (one, two) = (says("one"), says("two"));
    let to = |port: u16| format!("127.0.0.1 {port}");
    let config = write(&dir.path().join("r.conf"), &text(&to(one)));
    let start = |config: &Path| {
        let mut rinetd = command("rinetd");
        rinetd.arg("-f").arg("-c").arg(config);
        rinetd
    };
    let daemon = Daemon::spawn(dir, &mut start(&config));
    let asked = || greeting(port);
    answers(&daemon, &asked, "one");
    // A config that it cannot load ends it, and its group says so.
    let again = format!(
        "{} -f -c {} >{} 2>&1 &",
        start(&config).get_program().to_str().unwrap(),
        config.display(),
        daemon.path("again").display()
    );
    let confirm = format!(
        "revive = [\"sh\", \"-c\", \"{again}\"]\n[[group.confirm]]\ntcp = \"{{listen}}\"\n\
         changed = true\n#"
    );
    let dies = ("# on_bad_config = \"dies\"", "on_bad_config = \"dies\"");
    let written = group(&daemon, &[dies, (CONFIRM, &confirm)]);
    written.has("reloads", "true", "guessed: ExecReload of rinetd.service");
    change(&daemon, &text(&to(two))).expect(0);
    answers(&daemon, &asked, "two");
    let result = change(&daemon, &text("nowhere.invalid bogus"));
    let pid = result.json["instances"][0]["pid"].as_i64();
    let _revived = Revived(pid.and_then(|pid| i32::try_from(pid).ok()));
    let result = result.expect(6);
    assert_eq!(result.states(), ["reverted"]);
    until("the old config is served", || greeting(port) == "two");
}
