//! The commands of docs/stores.md, with a real Redis and a real PostgreSQL.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    daemons::{command, folder, need, program},
    support::{Fleet, Killed, until, write},
};

const NEW: &str = "message = \"from the store\"\nlisten = \"127.0.0.1:0\"\n";

/// Writes the script of this name from the page into `dir`.
fn script(dir: &Path, name: &str) -> PathBuf {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stores.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    let text = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .find(|text| text.contains(&format!("# {name} ")))
        .unwrap_or_else(|| panic!("no script {name}"));
    let path = write(&dir.join(name), text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Two scripts that read and write keys, and the environment that they find their store by.
struct Scripts {
    get: PathBuf,
    put: PathBuf,
    env: Vec<(&'static str, String)>,
}

/// Exit code and stdout.
type Ended = (Option<i32>, Vec<u8>);

impl Scripts {
    fn run(&self, path: &Path, args: &[&str], input: &[u8]) -> Ended {
        let mut child = Command::new("sh")
            .arg(path)
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), output.stdout)
    }

    fn get(&self, key: &str) -> Ended {
        self.run(&self.get, &[key], b"")
    }

    fn put(&self, key: &str, rev: &str, value: &[u8]) -> Ended {
        self.run(&self.put, &[key, rev], value)
    }

    /// Stores a value that no other has. Returns the revision.
    fn stored(&self, key: &str, rev: &str, value: &[u8]) -> String {
        let (code, out) = self.put(key, rev, value);
        assert_eq!(code, Some(0));
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    /// Checks the scripts themselves, and then a run that takes its config from them.
    fn work(&self) {
        assert_eq!(self.get("a").0, Some(3), "there is no such key");
        assert_eq!(self.put("a", "7", b"x").0, Some(3), "nor a revision");
        let value = b"two lines\n'quoted' \\ \"$x\" \xc3\xa4\n\n";
        let rev = self.stored("a", "", value);
        let printed = [rev.as_bytes(), b"\n", value].concat();
        assert_eq!(self.get("a"), (Some(0), printed));
        assert_eq!(self.put("a", "", b"x").0, Some(3), "it exists");
        let second = self.stored("a", &rev, b"");
        assert_ne!(second, rev);
        assert_eq!(self.put("a", &rev, b"x").0, Some(3), "it has changed");
        assert_eq!(self.get("a"), (Some(0), format!("{second}\n").into()));
        let large = NEW.repeat(20_000);
        let rev = self.stored("large", "", large.as_bytes());
        let printed = format!("{rev}\n{large}").into_bytes();
        assert!(self.get("large") == (Some(0), printed));
        self.feed_a_run();
    }

    fn feed_a_run(&self) {
        let rev = self.stored("web", "", NEW.as_bytes());
        let fleet = Fleet::start(1);
        let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
        let (get, put) = (&self.get, &self.put);
        let text = format!(
            "{text}\nsource = \"exec://kv/web\"\n[[store]]\nurl = \"exec://kv\"\nget = [\"sh\", {get:?}, \
             \"{{key}}\"]\nput = [\"sh\", {put:?}, \"{{key}}\", \"{{rev}}\"]\nrev = \"first_line\"\n"
        );
        fleet.write("fleet.toml", &text);
        let mut run = fleet.command(&["-o", "json"]);
        run.envs(self.env.iter().map(|(name, value)| (name, value)));
        let result = crate::support::CommandResult::of(&mut run).expect(0);
        assert_eq!(fleet.text(), NEW);
        assert_eq!(fleet.bodies(), ["from the store"]);
        assert_eq!(result.json["targets"][0]["source"]["rev"], rev);
    }
}

#[test]
fn the_commands_for_redis_work() {
    if !need("redis-server") || !need("redis-cli") {
        return;
    }
    let dir = folder();
    let port = crate::daemons::free_port();
    let mut server = command("redis-server");
    server
        .args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--port",
            &port.to_string(),
        ])
        .arg("--dir")
        .arg(dir.path())
        .stdout(Stdio::null());
    let server = Killed(server.spawn().unwrap());
    // redis-cli has no variable for its port.
    let cli = dir.path().join("redis-cli");
    let text = format!(
        "#!/bin/sh\nexec {} -p {port} \"$@\"\n",
        program("redis-cli").unwrap().display()
    );
    std::fs::write(&cli, text).unwrap();
    std::fs::set_permissions(&cli, std::fs::Permissions::from_mode(0o755)).unwrap();
    until("it answers", || {
        let mut ping = Command::new(&cli);
        ping.args(["-e", "PING"]).stdout(Stdio::null());
        ping.stderr(Stdio::null()).status().unwrap().success()
    });
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let scripts = Scripts {
        get: script(dir.path(), "redis-get"),
        put: script(dir.path(), "redis-put"),
        env: vec![("PATH", path)],
    };
    scripts.work();
    drop(server);
    let (code, _) = scripts.get("a");
    assert!(![Some(0), Some(3)].contains(&code), "it is away: {code:?}");
}

#[test]
fn the_commands_for_postgresql_work() {
    let Some(database) = crate::daemons::postgres::database() else {
        return;
    };
    let dir = folder();
    let mut env = database.env.clone();
    let bin = program("psql").unwrap();
    let path = format!(
        "{}:{}",
        bin.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    env.push(("PATH", path));
    let scripts = Scripts {
        get: script(dir.path(), "sql-get"),
        put: script(dir.path(), "sql-put"),
        env,
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stores.md");
    let page = std::fs::read_to_string(page).unwrap();
    let tables = page.split("```sql\n").nth(1).unwrap();
    let tables = tables.split("```").next().unwrap();
    let load = write(
        &dir.path().join("tables"),
        "exec psql -Xq -v ON_ERROR_STOP=1\n",
    );
    let (code, _) = scripts.run(&load, &[], tables.as_bytes());
    assert_eq!(code, Some(0));
    scripts.work();
}

#[test]
fn every_script_of_the_page_is_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stores.md");
    let page = std::fs::read_to_string(page).unwrap();
    let dir = folder();
    let path = dir.path().join("script");
    let blocks = page.split("```sh\n").skip(1);
    let mut count = 0;
    for text in blocks.map(|rest| rest.split("```").next().unwrap()) {
        std::fs::write(&path, text).unwrap();
        let status = Command::new("sh").arg("-n").arg(&path).status().unwrap();
        assert!(status.success(), "{text}");
        count += 1;
    }
    assert!(count > 7, "only {count} scripts");
}
