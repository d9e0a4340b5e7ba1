//! Daemons of Debian that no kind knows. Their groups are what `hello doctor PID --group` writes,
//! and the lines that an operator types: what shows a reload, and that there is no validator.

use std::{net::TcpStream, path::Path};

use super::{append, type_in};
use crate::{
    daemons::{Daemon, command, folder, free_port, need},
    support::{until, write},
};

/// Waits until a daemon listens on a port.
fn listens(daemon: &Daemon, port: u16) {
    until("it listens", || {
        assert!(daemon.runs(), "it ended: {}", daemon.log());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

#[test]
fn tinyproxy_reloads_by_a_written_group() {
    if !(need("tinyproxy") && need("curl")) {
        return;
    }
    let (dir, port) = (folder(), free_port());
    let text = |host: &str| {
        format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 10\nAllow 127.0.0.1\n\
             StatHost \"{host}\"\n"
        )
    };
    let config = write(&dir.path().join("t.conf"), &text("one.test"));
    let mut tinyproxy = command("tinyproxy");
    let daemon = Daemon::spawn(dir, tinyproxy.arg("-d").arg("-c").arg(config));
    listens(&daemon, port);
    let file = daemon.path("fleet.toml");
    let written = append(daemon.pid(), &file).expect(0);
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
    assert_eq!(written.key("validate"), None, "it has no validator");
    type_in(
        &file,
        "validate = \"none\"",
        "[[group.confirm]]\nexec = [\"curl\", \"-s\", \"-o\", \"/dev/null\", \"-w\", \
         \"%{http_code}\", \"-x\", \"http://{listen}/\", \"http://two.test/\"]\nchanged = true",
    );
    let good = daemon.write("good", &text("two.test"));
    daemon
        .broadcast(&["--config", good.to_str().unwrap()])
        .expect(0);
    let bad = daemon.write("bad", &format!("{}Bogus\n", text("three.test")));
    // Only its log says that it refused the file, so that the rollback changes nothing either.
    daemon
        .broadcast(&["--config", bad.to_str().unwrap()])
        .expect(7);
    assert_eq!(stat_host(&daemon.path("t.conf")), "StatHost \"two.test\"");
}

/// The line of a config that the test changes.
fn stat_host(config: &Path) -> String {
    let text = std::fs::read_to_string(config).unwrap();
    let line = text.lines().find(|line| line.starts_with("StatHost"));
    line.unwrap_or_default().to_owned()
}
