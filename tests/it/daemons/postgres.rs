//! PostgreSQL in the layout of Debian's packages, by itself and under `hello broadcast`.

use std::{os::unix::fs::chown, process::Command, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};

use super::{Daemon, case::Case, command, folder, free_port, need};
use crate::support::{until, write};

/// The longest time for a shutdown. A busy machine needs seconds.
const GONE: Duration = Duration::from_secs(20);

/// The place of the config of a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// In a separate directory, named on the command line.
    Debian,
    /// In the data directory, as `initdb` writes it. Only its user may read it.
    Upstream,
}

impl Layout {
    /// The path in the daemon's folder.
    fn file(self) -> &'static str {
        match self {
            Self::Debian => "etc/postgresql.conf",
            Self::Upstream => "data/postgresql.conf",
        }
    }
}

/// Starts PostgreSQL on a new cluster. The user `postgres` owns config, `data` and `run` if the
/// tests are root. `work_mem` is 4 MB and `max_connections` is 20.
struct Postgres {
    daemon: Daemon,
    port: u16,
    layout: Layout,
}

/// A database, and the variables by which `psql` of the caller finds it.
pub(crate) struct Database {
    _postgres: Postgres,
    pub(crate) env: Vec<(&'static str, String)>,
}

/// Starts PostgreSQL with a role for the user of the tests.
pub(crate) fn database() -> Option<Database> {
    let postgres = Postgres::start(Layout::Upstream)?;
    let caller = User::from_uid(geteuid()).unwrap().unwrap().name;
    if geteuid().is_root() {
        postgres
            .sql(&format!("create role \"{caller}\" superuser login"))
            .unwrap();
    }
    let host = postgres.daemon.path("run").display().to_string();
    let env = vec![
        ("PGHOST", host),
        ("PGPORT", postgres.port.to_string()),
        ("PGUSER", caller),
        ("PGDATABASE", "postgres".into()),
    ];
    Some(Database {
        _postgres: postgres,
        env,
    })
}

impl Postgres {
    fn start(layout: Layout) -> Option<Self> {
        let there = ["postgres", "initdb", "psql", "setpriv", "ipcrm"]
            .into_iter()
            .all(need);
        there.then(|| {
            let (dir, port) = (folder(), free_port());
            let [data, run, etc] = ["data", "run", "etc"].map(|name| dir.path().join(name));
            for path in [&data, &run, &etc] {
                std::fs::create_dir(path).unwrap();
                give(path);
            }
            let mut initdb = as_postgres("initdb");
            initdb.args(["--auth=peer", "--no-sync", "--locale=C", "--encoding=UTF8", "--wal-segsize=1", "--pgdata"]).arg(&data);
            let output = initdb.current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // With `mmap`, dynamic shared memory lies in the folder and goes with it, even after a
            // kill.
            let text = format!(
                "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\nshared_buffers = 16MB\n\
                 dynamic_shared_memory_type = mmap\nmax_connections = 20\nwork_mem = 4MB\n",
                run.display()
            );
            let config = dir.path().join(layout.file());
            let mut postgres = as_postgres("postgres");
            postgres.arg("-D").arg(data);
            match layout {
                Layout::Debian => {
                    give(&write(&config, &text));
                    postgres.arg("-c").arg(format!("config_file={}", config.display()));
                }
                Layout::Upstream => {
                    let all = std::fs::read_to_string(&config).unwrap() + &text;
                    std::fs::write(&config, all).unwrap();
                }
            }
            let postgres = Self { daemon: Daemon::spawn(dir, &mut postgres), port, layout };
            until("it answers", || {
                assert!(postgres.daemon.runs(), "it ended: {}", postgres.daemon.log());
                postgres.sql("select 1").is_some()
            });
            postgres
        })
    }

    /// Runs a query over a new connection. Returns a line per row with `|` between columns; `None`
    /// if it failed.
    fn sql(&self, query: &str) -> Option<String> {
        let mut psql = as_postgres("psql");
        psql.args(["-XAtq", "-d", "postgres", "-h"])
            .arg(self.daemon.path("run"))
            .arg("-p")
            .arg(self.port.to_string())
            .args(["-c", query]);
        let output = psql
            .env("PGCONNECT_TIMEOUT", "20")
            .current_dir(self.daemon.dir.path())
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Returns the time of its last load, in seconds since the epoch with microseconds.
    fn loaded(&self) -> String {
        self.sql("select extract(epoch from pg_conf_load_time())")
            .unwrap()
    }

    /// Returns the value of a key in its own unit, and whether it waits for a restart.
    fn value(&self, name: &str) -> String {
        self.sql(&format!(
            "select setting, pending_restart from pg_settings where name = '{name}'"
        ))
        .unwrap()
    }
}

impl Drop for Postgres {
    /// It frees its shared memory only on shutdown, and a stopped process does not get the request.
    fn drop(&mut self) {
        if !self.daemon.runs() {
            // It was killed. The seventh line holds the key and the id of the segment.
            let result = std::fs::read_to_string(self.daemon.path("data/postmaster.pid"))
                .unwrap_or_default();
            if let Some(segment) = result
                .lines()
                .nth(6)
                .and_then(|line| line.split_whitespace().nth(1))
            {
                let _ = command("ipcrm").args(["-m", segment]).output();
            }
            return;
        }
        let pid = Pid::from_raw(self.daemon.pid());
        let _ = kill(pid, Signal::SIGQUIT);
        let _ = kill(pid, Signal::SIGCONT);
        let deadline = std::time::Instant::now() + GONE;
        while self.daemon.runs() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Returns the user for PostgreSQL, which refuses root.
fn postgres_user() -> Option<User> {
    geteuid().is_root().then(|| {
        User::from_name("postgres")
            .unwrap()
            .expect("its package makes the user")
    })
}

fn give(path: &std::path::Path) {
    if let Some(user) = postgres_user() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

fn as_postgres(name: &str) -> Command {
    let program = command(name);
    let Some(user) = postgres_user() else {
        return program;
    };
    let mut wrapped = command("setpriv");
    wrapped
        .args([
            "--reuid",
            &user.uid.to_string(),
            "--regid",
            &user.gid.to_string(),
            "--init-groups",
            "--",
        ])
        .arg(program.get_program());
    wrapped
}

fn case<'a>(postgres: &'a Postgres, loads: &'a dyn Fn() -> String) -> Case<'a> {
    let config = postgres.daemon.path(postgres.layout.file());
    let arg = match postgres.layout {
        Layout::Debian => format!("config_file={}", config.display()),
        Layout::Upstream => postgres.daemon.path("data").display().to_string(),
    };
    let under = config.parent().unwrap().display();
    let group =
        format!("match = {{ exe = \"postgres\", args = [\"{arg}\"] }}\nconfig_under = \"{under}\"");
    let case = Case {
        daemon: &postgres.daemon,
        kind: "postgres",
        file: postgres.layout.file(),
        group,
        facts: String::new(),
        loads,
    };
    case.fleet("");
    case
}

#[test]
fn postgres_applies_reloadable_keys_and_reports_pending_restarts() {
    let Some(postgres) = Postgres::start(Layout::Debian) else {
        return;
    };
    let good = std::fs::read_to_string(postgres.daemon.path("etc/postgresql.conf")).unwrap();
    let reload = |text: &str| {
        let before = postgres.loaded();
        postgres.daemon.write("etc/postgresql.conf", text);
        postgres.daemon.signal(Signal::SIGHUP);
        until("it has read its config", || postgres.loaded() != before);
    };
    let faults = || {
        postgres
            .sql("select name, error from pg_file_settings where error is not null")
            .unwrap()
    };
    assert_eq!(
        (postgres.value("work_mem").as_str(), faults().as_str()),
        ("4096|f", "")
    );
    reload(&good.replace("4MB", "8MB"));
    assert_eq!(
        (postgres.value("work_mem").as_str(), faults().as_str()),
        ("8192|f", "")
    );
    reload(&good.replace("max_connections = 20", "max_connections = 30"));
    assert_eq!(
        (
            postgres.value("work_mem").as_str(),
            postgres.value("max_connections").as_str()
        ),
        ("4096|f", "20|t")
    );
    assert_eq!(faults(), "max_connections|setting could not be applied");
    reload(&good);
    assert_eq!(
        (
            postgres.value("max_connections").as_str(),
            faults().as_str()
        ),
        ("20|f", "")
    );
}

#[test]
fn postgres_loads_a_good_config_and_its_validator_rejects_a_bad_one() {
    let Some(postgres) = Postgres::start(Layout::Debian) else {
        return;
    };
    let loads = || postgres.loaded();
    let case = case(&postgres, &loads);
    let good = case.text();
    case.takes(&good.replace("4MB", "8MB"), "reloaded");
    assert_eq!(postgres.value("work_mem"), "8192|f");
    case.settles();
    case.refuses(&format!("{good}work_mem == 9MB\n"), "syntax error");
}

#[test]
fn postgres_with_its_config_in_the_data_directory_is_reloaded_and_nothing_is_shown() {
    let Some(postgres) = Postgres::start(Layout::Upstream) else {
        return;
    };
    let loads = || postgres.loaded();
    let case = case(&postgres, &loads);
    let good = case.text();
    case.takes(
        &good.replace("work_mem = 4MB", "work_mem = 8MB"),
        "reloaded",
    );
    assert_eq!(postgres.value("work_mem"), "8192|f");
    case.settles();
    case.refuses(
        &format!("{good}work_mem == 9MB\n"),
        "its output is not shown",
    );
    let more = good.replace("max_connections = 20", "max_connections = 30");
    let result = case.untouched(10, &["`max_connections`"], || case.change(&more));
    assert!(
        !result.stderr.contains("max_connections = "),
        "{}",
        result.stderr
    );
}

#[test]
fn postgres_reports_a_value_it_cannot_apply_and_is_rolled_back() {
    let Some(postgres) = Postgres::start(Layout::Debian) else {
        return;
    };
    let loads = || postgres.loaded();
    let case = case(&postgres, &loads);
    let good = case.text();
    case.rolls_back(
        &format!(
            "{}default_tablespace = 'nowhere'\n",
            good.replace("4MB", "8MB")
        ),
        "rejected",
    );
    assert_eq!(postgres.value("work_mem"), "4096|f");
    // A key of an included file could not be observed before.
    write(
        &postgres.daemon.path("etc/more.conf"),
        "max_connections = 30\n",
    );
    case.rolls_back(&format!("{good}include = 'more.conf'\n"), "rejected");
    assert_eq!(postgres.value("max_connections"), "20|f");
    // With these rules no client can connect any more to report it.
    case.fleet("timeout = \"2s\"");
    case.rolls_back(
        &format!("{good}session_preload_libraries = 'nothing'\n"),
        "timed_out",
    );
    case.settles();
}

#[test]
fn postgres_restart_keys_are_named_and_nothing_is_touched() {
    let Some(postgres) = Postgres::start(Layout::Debian) else {
        return;
    };
    let loads = || postgres.loaded();
    let case = case(&postgres, &loads);
    let good = case.text();
    let more = good
        .replace("max_connections = 20", "max_connections = 30")
        .replace("4MB", "8MB")
        + "superuser_reserved_connections = 4\n";
    case.untouched(
        10,
        &["`max_connections`, `superuser_reserved_connections`"],
        || case.change(&more),
    );
    assert_eq!(
        (
            postgres.value("max_connections"),
            postgres.value("work_mem")
        ),
        ("20|f".into(), "4096|f".into())
    );
    // Edited by hand. The old bytes show what changed; without them, the server does.
    case.edit(&more);
    case.untouched(
        10,
        &["`max_connections`, `superuser_reserved_connections`"],
        || postgres.daemon.broadcast(&[]),
    );
    case.edit(&good);
    assert_eq!(
        postgres.daemon.broadcast(&[]).expect(0).states(),
        ["confirmed"]
    );
    case.edit(&more);
    case.untouched(
        10,
        &["`max_connections`, `superuser_reserved_connections`"],
        || postgres.daemon.broadcast(&[]),
    );
    // A key that already waits for a restart is no part of this change.
    case.takes(&more.replace("8MB", "12MB"), "reloaded");
    assert_eq!(
        (
            postgres.value("max_connections"),
            postgres.value("work_mem")
        ),
        ("20|t".into(), "12288|f".into())
    );
    case.edit(&good);
    assert_eq!(
        postgres.daemon.broadcast(&[]).expect(0).states(),
        ["confirmed"]
    );
    // The same values in another notation, and one that was the default already.
    let same = good
        .replace("max_connections = 20", "Max_Connections '20' # as before")
        .replace("16MB", "16384kB");
    case.takes(
        &format!("{same}superuser_reserved_connections = 3\n"),
        "reloaded",
    );
}

#[test]
fn postgres_keeps_its_old_rules_when_the_new_ones_have_a_fault() {
    let Some(postgres) = Postgres::start(Layout::Debian) else {
        return;
    };
    let loads = || postgres.loaded();
    let data = postgres.daemon.path("data").display().to_string();
    for (file, good, bad) in [
        (
            "data/pg_hba.conf",
            "host all all 127.0.0.9/32 scram-sha-256\n",
            "host all all 127.0.0.9/32 scrum-sha-256\n",
        ),
        (
            "data/pg_ident.conf",
            "one /^(.*)@x$ \\1\n",
            "one /^(.*@x$ \\1\n",
        ),
    ] {
        let config = postgres.daemon.path(file).display().to_string();
        let group = format!(
            "match = {{ exe = \"postgres\", args = [\"{data}\"] }}\nconfig = \"{config}\"\nconfig_under = \"{data}\""
        );
        let case = Case {
            file,
            group,
            ..case(&postgres, &loads)
        };
        case.fleet("");
        let text = case.text();
        case.takes(&format!("{text}{good}"), "reloaded");
        case.rolls_back(&format!("{text}{good}{bad}"), "rejected");
        // A second fault beside an existing one could not be seen to appear.
        case.fleet("timeout = \"2s\"");
        case.edit(&format!("{text}{bad}"));
        let result = case.change(&format!("{text}{bad}# again\n"));
        assert_ne!(result.code, 0, "{}", result.stderr);
        case.edit(&text);
        postgres.daemon.signal(Signal::SIGHUP);
    }
}

#[test]
fn postgres_keys_that_another_source_overrides_are_refused() {
    let Some(postgres) = Postgres::start(Layout::Debian) else {
        return;
    };
    let loads = || postgres.loaded();
    let case = case(&postgres, &loads);
    postgres.sql("alter system set work_mem = '6MB'").unwrap();
    let good = case.text();
    case.untouched(5, &["`work_mem`", "overridden_keys"], || {
        case.change(&good.replace("4MB", "8MB"))
    });
    // That does not affect another key, nor a file that is read later.
    case.takes(&format!("{good}maintenance_work_mem = 8MB\n"), "reloaded");
    write(
        &postgres.daemon.path("etc/more.conf"),
        "maintenance_work_mem = 9MB\n",
    );
    case.takes(&format!("{good}include = 'more.conf'\n"), "reloaded");
    let result = case.untouched(5, &["`maintenance_work_mem`"], || {
        case.change(&format!(
            "{good}maintenance_work_mem = 7MB\ninclude = 'more.conf'\n"
        ))
    });
    assert!(!result.stderr.contains("`work_mem`"), "{}", result.stderr);
    postgres.sql("alter system reset all").unwrap();
    case.takes(
        &format!("{}include = 'more.conf'\n", good.replace("4MB", "8MB")),
        "reloaded",
    );
}

/// Stopped or killed while it is reloaded.
pub(super) fn stopped_or_killed() {
    let Some(postgres) = Postgres::start(Layout::Debian) else {
        return;
    };
    let loads = || postgres.loaded();
    let case = case(&postgres, &loads);
    // A stopped server does not report its keys either.
    case.stops_and_dies(
        &case.text().replace("4MB", "8MB"),
        "restart_keys = []\noverridden_keys = []",
    );
}
