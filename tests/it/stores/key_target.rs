//! `config = "URL"`: a run replaces the value of a key that servers merge over their file.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{etcd::Etcd, get, overwrite};
use crate::support::{CommandResult, Fleet, run_to_end, skipped};

pub(super) const OLD: &str = "message = \"old\"\n";

/// Servers with a file each, and one key of a store over all of them.
pub(super) struct Testbed {
    pub(super) fleet: Fleet,
    pub(super) url: String,
    pub(super) key: hello::fleet::Key,
}

impl Testbed {
    /// Starts `count` servers over a key that has the old value.
    pub(super) fn start(url: String, key: hello::fleet::Key, count: usize) -> Self {
        overwrite(&key, OLD);
        let mut testbed = Self {
            fleet: Fleet::start(0),
            url,
            key,
        };
        testbed.group("timeout = \"3s\"\n", "");
        for _ in 0..count {
            testbed.serve();
        }
        testbed
    }

    /// Writes `fleet.toml`, with these lines in its group and in its `[[store]]`.
    pub(super) fn group(&self, group: &str, store: &str) {
        let name = self.fleet.exe().file_name().unwrap();
        let (url, server) = (&self.url, self.url.rsplit_once('/').unwrap().0);
        self.fleet.write(
            "fleet.toml",
            &format!(
                "version = 1\n[[store]]\nurl = \"{server}\"\ntimeout = \"3s\"\n{store}\n\
                 [[group]]\nname = \"web\"\nkind = \"hello\"\nconfig = \"{url}\"\n\
                 match = {{ exe = {name:?}, args = [\"serve\"] }}\n{group}\n"
            ),
        );
    }

    /// Starts one more server, whose file is a copy of its own.
    pub(super) fn serve(&mut self) {
        let file = format!("web{}.toml", self.fleet.len());
        self.fleet.write(
            &file,
            "message = \"file\"\nlisten = \"127.0.0.1:0\"\nlog = \"info\"\n",
        );
        let fleet = self.fleet.path("fleet.toml");
        let (url, fleet) = (self.url.clone(), fleet.to_str().unwrap().to_owned());
        self.fleet
            .serve_with(&file, &["--store", &url, "--fleet", &fleet]);
    }

    /// Makes the process of this index fail its assertion as long as it does not answer "old".
    pub(super) fn refuse_new(&self, index: usize, more: &str) {
        let script = self.fleet.write(
            "judge",
            &format!(
                "#!/bin/sh\n[ \"$1\" != {} ] || [ \"$(curl -s \"$2\")\" = old ]\n",
                self.fleet.pid(index)
            ),
        );
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.group(
            &format!(
                "timeout = \"2s\"\n{more}\n[[group.confirm]]\n\
                 exec = [{:?}, \"{{pid}}\", \"http://{{listen}}/\"]\nread = \"exit\"\nequals = \"0\"\n",
                script.to_str().unwrap()
            ),
            "",
        );
    }

    pub(super) fn candidate(&self, text: &str) -> PathBuf {
        self.fleet.write("new.toml", text)
    }

    /// Broadcasts the message "new" by a file.
    pub(super) fn broadcast(&self) -> CommandResult {
        let new = self.candidate("message = \"new\"\n");
        self.fleet.broadcast(&["--config", new.to_str().unwrap()])
    }

    pub(super) fn value(&self) -> String {
        String::from_utf8(get(&self.key).unwrap().bytes).unwrap()
    }

    /// Asserts that the key has this text as its value, and every server this message.
    pub(super) fn is_all(&self, value: &str, message: &str) {
        assert_eq!(self.value(), value);
        for body in self.fleet.bodies() {
            assert_eq!(body, message);
        }
        let digests: Vec<Value> = (0..self.fleet.len())
            .map(|index| {
                let report = crate::support::get(self.fleet.url(index), "/-/config").1;
                let report: Value = serde_json::from_str(&report).unwrap();
                report["effective"]["layers"][1]["sha256"].clone()
            })
            .collect();
        for digest in digests {
            assert_eq!(digest, hello::config::digest(value.as_bytes()));
        }
    }

    /// Returns the lines of the journal of a run.
    pub(super) fn journal(&self, run: &str) -> Vec<Value> {
        let path = self.fleet.path(&format!("state/runs/{run}/events.jsonl"));
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Starts an etcd and `count` servers over one of its keys.
pub(super) fn in_etcd(count: usize) -> Option<(Etcd, Testbed)> {
    let etcd = Etcd::start()?;
    let testbed = Testbed::start(etcd.url("web"), etcd.key("web"), count);
    Some((etcd, testbed))
}

#[test]
fn a_broadcast_puts_the_new_value_and_proves_it_on_every_instance() {
    let Some((_etcd, testbed)) = in_etcd(3) else {
        return;
    };
    let surveyed = get(&testbed.key).unwrap().rev.to_string();
    let result = testbed.broadcast().expect(0);
    assert_eq!(result.states(), ["confirmed"; 3]);
    testbed.is_all("message = \"new\"\n", "new");
    for instance in result.json["instances"].as_array().unwrap() {
        assert_eq!(instance["proof"], "exact");
        assert_eq!(instance["validated"], true);
        assert_eq!(instance["targets"][0], testbed.url);
    }
    let target = &result.json["targets"][0];
    let own = get(&testbed.key).unwrap().rev.to_string();
    assert_eq!(target["path"], testbed.url);
    assert_eq!(target["kind"], "key");
    assert_eq!(target["key"]["rev"], surveyed);
    assert_eq!(target["key"]["own"], own);
    let journal = testbed.journal(result.json["run"].as_str().unwrap());
    let of = |name: &str| journal.iter().find(|e| e["event"] == name).unwrap();
    assert_eq!(of("intent")["targets"][0]["key"]["rev"], surveyed);
    assert_eq!(of("installed")["rev"], own);
}

#[test]
fn the_same_value_again_needs_no_signal() {
    let Some((_etcd, testbed)) = in_etcd(2) else {
        return;
    };
    testbed.broadcast().expect(0);
    let (rev, attempts) = (get(&testbed.key).unwrap().rev, testbed.fleet.attempts());
    let again = testbed.broadcast().expect(0);
    assert_eq!(again.states(), ["unchanged"; 2]);
    assert_eq!(get(&testbed.key).unwrap().rev, rev);
    assert_eq!(testbed.fleet.attempts(), attempts);
}

#[test]
fn a_value_that_is_in_the_store_already_is_adopted() {
    let Some((_etcd, testbed)) = in_etcd(2) else {
        return;
    };
    let rev = overwrite(&testbed.key, "message = \"by hand\"\n");
    let status = testbed.fleet.status();
    assert_eq!(status.code, 7, "{}", status.stderr);
    let fault = status.json["instances"][0]["faults"][0].as_str().unwrap();
    assert_eq!(fault, format!("does not run revision {rev} of its key"));
    let result = testbed.fleet.broadcast(&[]).expect(0);
    assert_eq!(result.states(), ["confirmed"; 2]);
    assert_eq!(get(&testbed.key).unwrap().rev, rev);
    testbed.is_all("message = \"by hand\"\n", "by hand");
    let status = testbed.fleet.status().expect(0);
    assert_eq!(
        status.json["instances"][0]["targets"][0]["rev"],
        rev.as_str()
    );
}

#[test]
fn set_edits_a_key_of_the_value() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    overwrite(&testbed.key, "# kept\nmessage = \"old\"\n");
    testbed.fleet.broadcast(&[]).expect(0);
    testbed
        .fleet
        .broadcast(&["--set", "message=edited"])
        .expect(0);
    testbed.is_all("# kept\nmessage = \"edited\"\n", "edited");
}

#[test]
fn a_dry_run_shows_the_difference_and_touches_nothing() {
    let Some((_etcd, testbed)) = in_etcd(2) else {
        return;
    };
    let (rev, attempts) = (get(&testbed.key).unwrap().rev, testbed.fleet.attempts());
    let new = testbed.candidate("message = \"new\"\n");
    let mut dry = testbed
        .fleet
        .command(&["--dry-run", "--config", new.to_str().unwrap()]);
    let output = dry.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("| +message = \"new\""), "{text}");
    assert!(text.contains(&testbed.url), "{text}");
    assert!(text.contains("in one step"), "{text}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(get(&testbed.key).unwrap().rev, rev);
    assert_eq!(testbed.fleet.attempts(), attempts);
}

#[test]
fn a_failed_wave_restores_the_value_and_the_config_of_every_instance() {
    let Some((_etcd, testbed)) = in_etcd(3) else {
        return;
    };
    if !has_curl() {
        return;
    }
    testbed.refuse_new(2, "[group.rollout]\nwaves = [\"1\", \"100%\"]");
    let surveyed = get(&testbed.key).unwrap().rev;
    let result = testbed.broadcast().expect(6);
    testbed.is_all(OLD, "old");
    let now = get(&testbed.key).unwrap().rev;
    assert_ne!(now, surveyed, "a rollback makes a new revision");
    assert_eq!(result.json["targets"][0]["key"]["own"], now.as_str());
    assert_eq!(
        result.json["targets"][0]["disk"],
        result.json["targets"][0]["from"]
    );
}

pub(super) fn has_curl() -> bool {
    let has = Command::new("curl").arg("--version").output().is_ok();
    if !has {
        skipped("there is no curl");
    }
    has
}

#[test]
fn a_run_is_reverted_and_shown_by_its_id() {
    let Some((_etcd, testbed)) = in_etcd(2) else {
        return;
    };
    let result = testbed.broadcast().expect(0);
    let run = result.json["run"].as_str().unwrap();
    let mut show = Command::new(testbed.fleet.exe());
    show.args(["show", run, "--state"])
        .arg(testbed.fleet.path("state"));
    let shown = String::from_utf8(show.output().unwrap().stdout).unwrap();
    assert!(shown.contains(&testbed.url), "{shown}");
    testbed.fleet.continue_run("revert", &[run]).expect(0);
    testbed.is_all(OLD, "old");
}

#[test]
fn the_old_value_stands_in_the_folder_of_the_run_and_only_its_user_may_read_it() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    let result = testbed.broadcast().expect(0);
    let run = result.json["run"].as_str().unwrap();
    let folder = testbed.fleet.path(&format!("state/runs/{run}"));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let sha256 = hello::config::digest(OLD.as_bytes());
    let files: Vec<PathBuf> = walk(&testbed.fleet.path("state"));
    let old = files
        .iter()
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .contains(&sha256)
        })
        .unwrap();
    assert_eq!(mode(old), 0o600);
    assert_eq!(std::fs::read(old).unwrap(), OLD.as_bytes());
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_merged_config_that_is_not_valid_ends_with_4_and_the_key_stays() {
    let Some((_etcd, testbed)) = in_etcd(2) else {
        return;
    };
    let (rev, attempts) = (get(&testbed.key).unwrap().rev, testbed.fleet.attempts());
    for (text, wanted) in [
        ("mesage = \"new\"\n", "did you mean `message`?"),
        ("message = 1\n", "1 | message = 1"),
        ("", "must not be empty"),
    ] {
        let new = testbed.candidate(text);
        let result = testbed
            .fleet
            .broadcast(&["--config", new.to_str().unwrap()])
            .expect(4);
        assert!(result.stderr.contains(wanted), "{}", result.stderr);
    }
    // The key alone is valid, and all layers together are no config.
    testbed
        .fleet
        .write("web1.toml", "log = \"info\"\nlisten = \"127.0.0.1:0\"\n");
    testbed.fleet.signal(1, nix::sys::signal::Signal::SIGHUP);
    crate::support::until("the file is loaded", || {
        testbed.fleet.attempts()[1] > attempts[1]
    });
    let new = testbed.candidate("log = \"warn\"\n");
    let result = testbed
        .fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(4);
    assert!(
        result.stderr.contains("`message` is missing"),
        "{}",
        result.stderr
    );
    assert_eq!(get(&testbed.key).unwrap().rev, rev);
    assert_eq!(testbed.fleet.attempts()[0], attempts[0]);
}

#[test]
fn a_candidate_that_leaves_a_key_to_the_file_is_valid() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    let new = testbed.candidate("log = \"warn\"\n");
    testbed
        .fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(0);
    testbed.is_all("log = \"warn\"\n", "file");
}

#[test]
fn a_changed_listen_needs_a_restart() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    let new = testbed.candidate("message = \"new\"\nlisten = \"127.0.0.1:1\"\n");
    testbed
        .fleet
        .broadcast(&["--config", new.to_str().unwrap()])
        .expect(10);
    testbed.is_all(OLD, "old");
}

#[test]
fn a_file_below_the_key_that_changed_since_is_refused() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    testbed.fleet.write("web0.toml", "message = \"other\"\n");
    let result = testbed.broadcast().expect(5);
    assert!(result.stderr.contains("web0.toml"), "{}", result.stderr);
    assert_eq!(testbed.value(), OLD);
}

#[test]
fn a_server_that_reads_another_key_is_refused() {
    let Some((etcd, mut testbed)) = in_etcd(1) else {
        return;
    };
    overwrite(&etcd.key("other"), OLD);
    testbed.url = etcd.url("other");
    testbed.group("", "");
    let result = testbed.broadcast().expect(5);
    assert!(result.stderr.contains("does not read"), "{}", result.stderr);
}

#[test]
fn doctor_says_that_only_a_write_shows_whether_a_key_may_be_written() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    let mut doctor = testbed.fleet.read_only("doctor");
    let end = run_to_end(doctor.args(["-o", "json"]).stdin(Stdio::null()));
    assert_eq!(end.code, Some(0), "{:#}", end.json);
    let text = end.json.to_string();
    assert!(text.contains("only a write shows"), "{text}");
    assert!(text.contains("key, revision"), "{text}");
}

#[test]
fn diff_compares_the_store_with_what_the_instances_run() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    testbed.broadcast().expect(0);
    overwrite(&testbed.key, "message = \"newer\"\n");
    let mut diff = testbed.fleet.read_only("diff");
    diff.arg("--state").arg(testbed.fleet.path("state"));
    let output = diff.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("-message = \"new\""), "{text}");
    assert!(text.contains("+message = \"newer\""), "{text}");
}

#[test]
fn two_groups_that_read_one_key_have_one_target() {
    let Some((etcd, testbed)) = in_etcd(2) else {
        return;
    };
    let name = testbed.fleet.exe().file_name().unwrap().to_owned();
    let group = |index: usize| {
        format!(
            "[[group]]\nname = \"web{index}\"\nkind = \"hello\"\nconfig = \"{}\"\n\
             match = {{ exe = {name:?}, args = [\"serve\", \"*web{index}.toml\"] }}\n",
            testbed.url
        )
    };
    testbed.fleet.write(
        "fleet.toml",
        &format!("version = 1\n{}{}", group(0), group(1)),
    );
    let result = testbed
        .fleet
        .broadcast(&["--all", "--set", "message=new"])
        .expect(0);
    assert_eq!(result.states(), ["confirmed"; 2]);
    assert_eq!(result.json["targets"].as_array().unwrap().len(), 1);
    testbed.is_all("message = \"new\"\n", "new");
    drop(etcd);
}

#[test]
fn a_failure_within_the_budget_puts_the_old_value_for_one_instance_alone() {
    let Some((_etcd, testbed)) = in_etcd(3) else {
        return;
    };
    if !has_curl() {
        return;
    }
    testbed.refuse_new(
        2,
        "[group.rollout]\nwaves = [\"100%\"]\nmax_failures = 1\non_failure = \"continue\"",
    );
    let result = testbed.broadcast().expect(8);
    assert_eq!(result.states(), ["confirmed", "confirmed", "reverted"]);
    assert_eq!(testbed.value(), "message = \"new\"\n");
    assert_eq!(testbed.fleet.bodies(), ["new", "new", "old"]);
}

#[test]
fn no_copy_for_a_validator_is_left_over() {
    let Some((_etcd, testbed)) = in_etcd(1) else {
        return;
    };
    let result = testbed.broadcast().expect(0);
    let run = result.json["run"].as_str().unwrap();
    let keys = std::path::Path::new("/run/hello/keys");
    if keys.exists() {
        let left = walk(keys);
        assert!(
            !left.iter().any(|path| path.to_string_lossy().contains(run)),
            "{left:?}"
        );
    }
    let records = testbed.fleet.path("state/staged");
    assert_eq!(walk(&records), Vec::<PathBuf>::new());
}
