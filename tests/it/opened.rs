//! As root, a run sees whether a process opens its config after the signal.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Fleet, Killed, Said};

/// Reads a file at each signal, by itself or by a child, and then counts the signal.
const PROGRAM: &str = "import signal, subprocess, sys, time
_, count, how, *read = sys.argv
# Whose child it is can be told as long as it is there.
READ = 'import sys, time; open(sys.argv[1]).read(); time.sleep(0.3)'
def hang_up(*_):
    for path in read:
        if how == 'itself': open(path).read()
        if how == 'child': subprocess.run(['python3', '-c', READ, path])
        if how == 'grandchild': subprocess.run(['sh', '-c', 'python3 -c \"$0\" \"$1\"; true', READ, path])
    seen = int(open(count).read())
    open(count, 'w').write(str(seen + 1))
signal.signal(signal.SIGHUP, hang_up)
print('ready', flush=True)
while True: time.sleep(60)
";

/// A folder with the files `a` and `dir/b` beside another one, and a program that reads some of them.
struct House {
    fleet: Fleet,
    _program: Killed,
}

impl House {
    /// None where this user cannot see who opens a file.
    fn of(how: &str, reads: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            crate::support::skipped("only root sees who opens a file");
            return None;
        }
        let fleet = Fleet::start(0);
        std::fs::create_dir_all(fleet.path("dir/deep")).unwrap();
        for name in ["a", "other", "dir/b", "dir/deep/c"] {
            fleet.write(name, "one\n");
        }
        fleet.write("count", "1");
        let mut command = Command::new("python3");
        command.arg(fleet.write("program.py", PROGRAM)).arg(fleet.path("count")).arg(how).args(reads.iter().map(|name| fleet.path(name)));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let program = Killed(child);
        assert!(BufReader::new(stdout).lines().any(|line| line.unwrap() == "ready"));
        Some(Self { fleet, _program: program })
    }

    fn group(&self, config: &str, keys: &str) {
        let (script, count) = (self.fleet.path("program.py"), self.fleet.path("count"));
        let config = config.replace("DIR", self.fleet.dir.path().to_str().unwrap());
        let text = format!(
            "version = 1\n[[group]]\nname = \"app\"\nmatch = {{ script = \"{}\" }}\ngetopt = \"\"\nreloads = true\nconfig = {config}\n{keys}\n\
             [[group.confirm]]\nexec = [\"cat\", \"{}\"]\nincreased = true\n",
            script.display(),
            count.display()
        );
        self.fleet.write("fleet.toml", &text);
    }

    fn broadcast(&self, new: &str) -> Said {
        let new = self.fleet.path(new);
        self.fleet.broadcast(&["--config", new.to_str().unwrap(), "--timeout", "30s"])
    }

    fn opened(config: &str, how: &str, reads: &[&str]) -> Option<(i32, String, Value, String)> {
        let house = Self::of(how, reads)?;
        house.group(config, "");
        house.fleet.write("new", "two\n");
        let said = house.broadcast("new");
        let one = &said.json["instances"][0];
        let state = one["state"].as_str().unwrap_or_else(|| panic!("{}\n{:#}", said.stderr, said.json)).to_owned();
        Some((said.code, state, one["opened"].clone(), said.stderr))
    }
}

const NAMED: &str = "\"DIR/a\"";
const DEFAULT: &str = "[\"{arg:-c}\", \"DIR/a\"]";

#[test]
fn one_that_opens_its_config_is_confirmed_by_itself_and_by_its_children() {
    for how in ["itself", "child", "grandchild"] {
        for config in [NAMED, DEFAULT] {
            let Some((code, state, opened, stderr)) = House::opened(config, how, &["a"]) else { return };
            assert_eq!((code, state.as_str(), opened), (0, "confirmed", true.into()), "{how} {config}: {stderr}");
            assert!(!stderr.contains("Not opened"), "{stderr}");
        }
    }
}

#[test]
fn one_that_opens_another_file_is_told_and_is_unproven_where_nothing_names_its_config() {
    for (config, code, state) in [(NAMED, 0, "confirmed"), (DEFAULT, 12, "unconfirmed")] {
        for reads in [&[][..], &["other"], &["dir/b", "other"]] {
            let Some((exit, is, opened, stderr)) = House::opened(config, "itself", reads) else { return };
            assert_eq!((exit, is.as_str(), opened), (code, state, false.into()), "{config} {reads:?}: {stderr}");
            assert!(stderr.contains("Not opened") && stderr.contains("/a after its signal"), "{stderr}");
            assert_eq!(code == 12, stderr.contains("which is only its default"), "{stderr}");
        }
    }
}

#[test]
fn a_directory_is_opened_where_a_file_in_it_is() {
    for (reads, opened) in [(&["dir/deep/c"][..], true), (&["dir/b"], true), (&["a"], false)] {
        let Some(house) = House::of("itself", reads) else { return };
        house.group("\"DIR/dir\"", "");
        std::fs::create_dir_all(house.fleet.path("new/deep")).unwrap();
        ["new/b", "new/deep/c"].iter().for_each(|name| drop(house.fleet.write(name, "two\n")));
        let said = house.broadcast("new").expect(0);
        assert_eq!(said.json["instances"][0]["opened"], opened, "{reads:?} {:#}", said.json);
    }
}

#[test]
fn each_of_several_targets_must_be_opened() {
    for (reads, opened) in [(&["a", "other"][..], true), (&["a"], false), (&["other"], false)] {
        let Some(house) = House::of("itself", reads) else { return };
        house.group("[[\"DIR/a\"], [\"DIR/other\"]]", "");
        let said = house.fleet.broadcast(&["--timeout", "30s"]).expect(0);
        assert_eq!(said.json["instances"][0]["opened"], opened, "{reads:?} {:#}", said.json);
    }
}

#[test]
fn a_run_of_somebody_who_may_not_watch_says_nothing_of_it() {
    let Some(house) = House::of("itself", &["other"]) else { return };
    house.group(DEFAULT, "");
    house.fleet.write("new", "two\n");
    let new = house.fleet.path("new");
    let run = house.fleet.command(&["-o", "json", "--config", new.to_str().unwrap()]);
    // Root without the capability that the kernel asks for.
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(run.get_program()).args(run.get_args());
    without.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(run.get_current_dir().unwrap_or(Path::new("/")));
    let said = Said::of(&mut without).expect(0);
    assert_eq!((said.states(), &said.json["instances"][0]["opened"]), (vec!["confirmed"], &Value::Null), "{:#}", said.json);
    assert!(!said.stderr.contains("Not opened"), "{}", said.stderr);
}

#[test]
fn doctor_tells_whether_a_run_would_see_it() {
    for (config, text) in [(NAMED, "a run sees whether it opens"), (DEFAULT, "is only its default")] {
        let Some(house) = House::of("itself", &["a"]) else { return };
        house.group(config, "");
        let said = house.fleet.doctor(&[]);
        let checks = said.json["processes"][0]["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == "opened").unwrap_or_else(|| panic!("{:#}", said.json));
        assert!(check["text"].as_str().unwrap().contains(text), "{check}");
    }
}
