//! The target is the file that the process reads. The processes are Perl scripts with chosen
//! arguments, title and working directory.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::support::{CommandResult, Fleet};

/// Changes its directory and title as requested, and counts its signals in the file `count`.
const SCRIPT: &str = "$| = 1; my $n = 0;
$SIG{HUP} = sub { $n++; open(my $f, '>', $ENV{COUNT}); print $f $n; close $f };
chdir $ENV{MOVE} if defined $ENV{MOVE};
$0 = $ENV{TITLE} x ($ENV{TIMES} || 1) if defined $ENV{TITLE};
print \"ready\\n\";
sleep 60 while 1;
";

/// A process that is killed by its pid.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with the files `a` and `b`, also in its folders `one` and `two`.
struct House {
    fleet: Fleet,
    root: PathBuf,
}

impl House {
    fn new() -> Option<Self> {
        if !Path::new("/usr/bin/perl").exists() {
            crate::support::skipped("there is no perl");
            return None;
        }
        let fleet = Fleet::start(0);
        let root = fleet.dir.path().canonicalize().unwrap();
        fleet.write("run.pl", SCRIPT);
        fleet.write("count", "0");
        for dir in ["", "one/", "two/"] {
            if !dir.is_empty() {
                std::fs::create_dir(root.join(dir)).unwrap();
            }
            for name in ["a", "b"] {
                fleet.write(&format!("{dir}{name}"), name);
            }
        }
        assert!(
            Command::new("cp")
                .arg("/usr/bin/perl")
                .arg(root.join("perl"))
                .status()
                .unwrap()
                .success()
        );
        Some(Self { fleet, root })
    }

    /// Starts the program in the folder `dir`. `env` sets the variables about that folder.
    fn run(&self, dir: &str, args: &[&str], env: &[(&str, &str)]) -> Program {
        let mut command = Command::new(self.root.join("perl"));
        command
            .arg(self.root.join("run.pl"))
            .args(args)
            .current_dir(self.root.join(dir));
        command
            .env_remove("PWD")
            .env("COUNT", self.root.join("count"))
            .envs(env.iter().copied());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let program = Program(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        program
    }

    fn group(&self, keys: &str) {
        let exe = self.root.join("perl");
        let text = format!(
            "version = 1\n[[group]]\nname = \"app\"\nmatch = {{ exe = \"{}\" }}\nreloads = true\n{keys}\n",
            exe.display()
        );
        self.fleet.write(
            "fleet.toml",
            &text.replace("ROOT", self.root.to_str().unwrap()),
        );
    }

    /// Returns the file that `doctor` names, relative to the folder. An unknown file is a reason
    /// behind `?`.
    fn reads(&self, keys: &str) -> String {
        self.group(&format!("confirm = []\n{keys}"));
        let result = self.fleet.doctor(&[]);
        let checks = result.json["processes"][0]["checks"]
            .as_array()
            .unwrap_or_else(|| panic!("{}\n{:#}", result.stderr, result.json));
        let config = checks
            .iter()
            .find(|check| check["check"] == "config")
            .unwrap();
        let text = config["text"].as_str().unwrap();
        if config["ok"] == true {
            let path = text.split('`').nth(1).unwrap();
            return path
                .strip_prefix(&format!("{}/", self.root.display()))
                .unwrap_or(path)
                .to_owned();
        }
        assert_eq!(result.code, 5, "{}", result.stderr);
        format!("?{text}; {}", config["next"].as_str().unwrap_or_default())
    }

    /// Returns the file that a process with these arguments reads. `ROOT` stands for the folder.
    fn reads_by(&self, args: &[&str], keys: &str) -> String {
        let args: Vec<String> = args
            .iter()
            .map(|arg| arg.replace("ROOT", self.root.to_str().unwrap()))
            .collect();
        let _program = self.run(
            "",
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            &[],
        );
        self.reads(keys)
    }
}

/// Whether a run is refused with this reason, and with the line of `fleet.toml` that helps.
#[track_caller]
fn refuses(result: &str, reason: &str) {
    assert!(result.starts_with('?'), "{reason}: {result}");
    assert!(result.contains(reason), "{reason}: {result}");
    assert!(result.contains("write `config = \""), "{reason}: {result}");
}

const OR_A: &str = "config = [\"{arg:-f}\", \"{arg:--config}\", \"ROOT/a\"]";

#[test]
fn the_option_that_the_program_takes_names_the_config() {
    let Some(house) = House::new() else { return };
    for (args, keys, file) in [
        (&["-f", "ROOT/a", "-f", "ROOT/b"][..], "", "b"),
        (&["-Df", "ROOT/b"], "getopt = \"Df:\"", "b"),
        (&["-DfROOT/b"], "getopt = \"Df:\"", "b"),
        (&["-x", "-f", "-D"], "getopt = \"Df:x:\"", "a"),
        (&["--config=ROOT/a", "-fROOT/b"], "getopt = \"f:\"", "b"),
        (&["-prof", "ROOT/b"], "getopt = \"\"", "a"),
        (&["-f", "file:ROOT/b"], "", "b"),
        (&["-x"], "", "a"),
    ] {
        assert_eq!(
            house.reads_by(args, &format!("{OR_A}\n{keys}")),
            file,
            "{args:?} {keys}"
        );
    }
    for (args, keys, reason) in [
        (&["-Df", "ROOT/b"][..], "", "may have -f"),
        (&["--conf=ROOT/b"], "", "may have -f or --config"),
        (
            &["-f", "ROOT/b", "--config", "ROOT/a"],
            "",
            "may have -f or --config",
        ),
        (&["@more"], "", "@more"),
        (&["sub", "--", "-f", "ROOT/b"], "", "may have -f"),
        (
            &["-f", "ROOT/a", "-f", "ROOT/b"],
            "repeated = \"all\"",
            "which of them",
        ),
        (&["-f", "python:a.b"], "", "no path of a file"),
    ] {
        refuses(&house.reads_by(args, &format!("{OR_A}\n{keys}")), reason);
    }
}

#[test]
fn a_title_that_hides_the_arguments_leads_to_no_default() {
    let Some(house) = House::new() else { return };
    let root = house.root.to_str().unwrap();
    house.fleet.write("my", "x");
    house.fleet.write("our file", "x");
    let by = |title: &str, keys: &str| {
        let _program = house.run(
            "",
            &["-f", &format!("{root}/b"), "--", "x", &"x".repeat(400)],
            &[("TITLE", &title.replace("ROOT", root))],
        );
        house.reads(&format!("{OR_A}\n{keys}"))
    };
    refuses(&by("app: master process (ROOT/b)", ""), "written a title");
    assert_eq!(by("app: run -f ROOT/b", ""), "b");
    assert_eq!(by("app: run -f ROOT/our file", ""), "our file");
    let pattern = "title = \"app: {argv} [[]*]\"\ngetopt = \"Df:\"";
    assert_eq!(by("app: run -D [1 of 2]", pattern), "a");
    assert_eq!(
        by("app: run -Df ROOT/our file [1 of 2]", pattern),
        "our file"
    );
    refuses(&by("worker: run -D [1 of 2]", pattern), "written a title");
    // The title has no room for the whole command line.
    let cut = house.run(
        "",
        &[],
        &[("TITLE", &format!("app: run -f {root} ")), ("TIMES", "400")],
    );
    refuses(&house.reads(&format!("{OR_A}\n{pattern}")), "cut off");
    drop(cut);
    // Both files exist, and the title may mean either.
    house.fleet.write("my file", "x");
    refuses(&by("app: run -f ROOT/my file", ""), "may name");
}

#[test]
fn a_config_that_is_no_file_is_refused() {
    let Some(house) = House::new() else { return };
    symlink("/dev/stdin", house.root.join("link")).unwrap();
    nix::unistd::mkfifo(&house.root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [
        "-",
        "/dev/stdin",
        "/dev/fd/0",
        "/proc/self/fd/0",
        "ROOT/link",
        "ROOT/pipe",
        "/dev/null",
    ] {
        refuses(
            &house.reads_by(&["-f", path], OR_A),
            "no file that a run could replace",
        );
    }
}

#[test]
fn a_relative_path_begins_where_the_process_was_started() {
    let Some(house) = House::new() else { return };
    let at = |name: &str| house.root.join(name).to_str().unwrap().to_owned();
    let (one, two) = (at("one"), at("two"));
    let by = |env: &[(&str, &str)], args: &[&str], keys: &str| {
        let _program = house.run("one", args, env);
        house.reads(keys)
    };
    let config = "config = \"{arg:-f}\"";
    assert_eq!(by(&[("PWD", &one)], &["-f", "a"], config), "one/a");
    // A file of that name is there as well, and it is another one.
    let moved = by(&[("PWD", &one), ("MOVE", &two)], &["-f", "a"], config);
    refuses(&moved, "relative to the directory that it was started in");
    assert!(moved.contains(&format!("{one}/a")), "{moved}");
    refuses(
        &by(&[], &["-f", "a"], config),
        "relative to the directory that it was started in",
    );
    assert_eq!(
        by(&[], &["-f", "a"], &format!("{config}\nbase = \"{{cwd}}\"")),
        "one/a"
    );
    // It has left that directory, and both directories have such a file.
    let left = by(
        &[("PWD", &one), ("MOVE", &two)],
        &["-f", "a"],
        &format!("{config}\nbase = \"{{cwd}}\""),
    );
    refuses(
        &left,
        "which exists below the directory that it was started in",
    );
    assert!(left.contains(&format!("{one}/a")), "{left}");
    assert_eq!(
        by(
            &[("MOVE", "/")],
            &["-p", &two, "-f", "a"],
            &format!("{config}\nbase = [\"{{arg:-p}}\", \"/none\"]")
        ),
        "two/a"
    );
    // Its working directory is the one that it was given.
    std::fs::create_dir(house.root.join("one/data")).unwrap();
    house.fleet.write("one/data/c", "c");
    assert_eq!(
        by(
            &[("PWD", &one), ("MOVE", "data")],
            &["-d", "data"],
            "config = \"{arg:-d}/c\""
        ),
        "one/data/c"
    );
}

#[test]
fn a_default_is_the_one_that_is_compiled_in() {
    let Some(house) = House::new() else { return };
    let by = |built: &str, args: &[&str]| {
        let built = built.replace("ROOT", house.root.to_str().unwrap());
        let keys =
            format!("built = [\"sh\", \"-c\", \"echo {built}\"]\nbase = \"{{built:--prefix=}}\"");
        house.reads_by(
            args,
            &format!("config = [\"{{arg:-f}}\", \"{{built:--conf=}}\", \"{{base}}/a\"]\n{keys}"),
        )
    };
    assert_eq!(by("--prefix=ROOT --conf=ROOT/b", &[]), "b");
    assert_eq!(by("--prefix=ROOT/one --conf=b", &[]), "one/b");
    assert_eq!(by("--prefix=ROOT/two", &[]), "two/a");
    assert_eq!(by("--prefix=ROOT/two", &["-f", "b"]), "two/b");
    assert_eq!(by("--prefix=ROOT --conf=ROOT/b", &["-f", "ROOT/a"]), "a");
    refuses(&by("nothing", &[]), "a directory that nothing tells");
}

/// Adopts the content on the disk. Every reload increments the counter.
fn adopts(house: &House) -> CommandResult {
    house.fleet.broadcast(&[])
}

/// One run proves the content and the next has nothing to do. After `change`, `status` and a run
/// notice.
fn sees(house: &House, keys: &str, change: impl FnOnce()) {
    let count = house.root.join("count");
    let fact = format!(
        "[[group.confirm]]\nexec = [\"cat\", \"{}\"]\nchanged = true",
        count.display()
    );
    house.group(&format!("samples = 1\ntimeout = \"20s\"\n{keys}\n{fact}"));
    assert_eq!(adopts(house).expect(0).states(), ["confirmed"]);
    assert_eq!(adopts(house).expect(0).states(), ["unchanged"]);
    house.fleet.status().expect(0);
    change();
    let result = house.fleet.status().expect(7);
    assert!(
        result.json["instances"][0]["faults"]
            .to_string()
            .contains("read through"),
        "{:#}",
        result.json
    );
    assert_eq!(adopts(house).expect(0).states(), ["confirmed"]);
    house.fleet.status().expect(0);
}

#[test]
fn a_change_behind_a_link_that_leads_out_of_a_directory_is_a_change() {
    let Some(house) = House::new() else { return };
    let _program = house.run("", &[], &[]);
    symlink("../two/a", house.root.join("one/link")).unwrap();
    sees(&house, "config = \"ROOT/one\"", || {
        drop(house.fleet.write("two/a", "changed"))
    });
}

#[test]
fn a_change_of_what_a_glob_includes_is_a_change() {
    let Some(house) = House::new() else { return };
    let _program = house.run("", &[], &[]);
    house.fleet.write("a", "x { include two/*; }");
    sees(
        &house,
        "config = \"ROOT/a\"\nincludes = \"include\"",
        || drop(house.fleet.write("two/new", "new")),
    );
}

#[test]
fn a_file_with_more_arguments_behind_the_option_may_decide() {
    let Some(house) = House::new() else { return };
    house.fleet.write("more", "-f two/b");
    let config = "config = \"{arg:-f}\"";
    refuses(
        &house.reads_by(&["-f", "ROOT/a", "@ROOT/more"], config),
        "may have -f once more in the file",
    );
    assert_eq!(house.reads_by(&["@ROOT/more", "-f", "ROOT/a"], config), "a");
    assert_eq!(
        house.reads_by(&["-f", "ROOT/a", "--socket", "@abstract"], config),
        "a"
    );
    // A file that cannot have the option in it.
    let token = ["-f", "ROOT/a", "--token", "@ROOT/one/b"];
    assert_eq!(house.reads_by(&token, config), "a");
    // An option for no config file leads to no default.
    let default = "config = [\"{arg:-f}\", \"ROOT/a\"]\nno_default = [\"--none\"]\ngetopt = \"\"";
    refuses(
        &house.reads_by(&["--none"], default),
        "says by `--none` that it does not read",
    );
    assert_eq!(house.reads_by(&["--none", "-f", "ROOT/b"], default), "b");
    // An argument of the interpreter, or the name of the script, is no config.
    let _program = house.run("", &["ROOT/a"], &[]);
    house.group("confirm = []\nconfig = \"{arg:1}\"");
    let text = std::fs::read_to_string(house.fleet.path("fleet.toml")).unwrap();
    house.fleet.write(
        "fleet.toml",
        &text.replace("match = { ", "match = { script = \"run.pl\", "),
    );
    assert!(
        house
            .fleet
            .doctor(&[])
            .json
            .to_string()
            .contains("or names its script")
    );
}

#[test]
fn a_change_of_what_a_text_names_is_a_change_wherever_its_path_begins() {
    for (text, name) in [
        ("map ${LISTS}/b", "two/b"),
        ("list lists/c", "two/lists/c"),
        ("@admins", "one/admins"),
        ("include ../b", "b"),
    ] {
        let Some(house) = House::new() else { return };
        std::fs::create_dir(house.root.join("two/lists")).unwrap();
        ["two/lists/c", "one/admins"]
            .iter()
            .for_each(|name| drop(house.fleet.write(name, "c")));
        let lists = house.root.join("two");
        let _program = house.run("two", &[], &[("LISTS", lists.to_str().unwrap())]);
        house.fleet.write("one/a", text);
        sees(&house, "config = \"ROOT/one/a\"", || {
            drop(house.fleet.write(name, "changed"))
        });
    }
}

#[test]
fn content_that_was_changed_and_restored_may_have_been_read_in_between() {
    let Some(house) = House::new() else { return };
    let _program = house.run("", &[], &[]);
    house.fleet.write("a", "x { include two/b; }");
    sees(
        &house,
        "config = \"ROOT/a\"\nincludes = \"include\"",
        || {
            ["other", "b"]
                .iter()
                .for_each(|text| drop(house.fleet.write("two/b", text)))
        },
    );
}

#[test]
fn a_directory_mounted_elsewhere_is_named_by_its_path_on_this_host() {
    let Some(house) = House::new() else { return };
    if !crate::support::runs_as_root("only root can mount") {
        return;
    }
    let root = house.root.to_str().unwrap();
    std::fs::create_dir(house.root.join("inside")).unwrap();
    let script = format!(
        "mount --bind {root}/two {root}/inside && exec {root}/perl {root}/run.pl -f {root}/inside/b"
    );
    let mut unshare = Command::new("unshare");
    let mut child = unshare
        .args(["-m", "sh", "-c", &script])
        .env("COUNT", house.root.join("count"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let _program = Program(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    if line != "ready\n" {
        crate::support::skipped("no mount namespace can be had here");
        return;
    }
    let result = house.reads("config = \"{arg:-f}\"");
    refuses(&result, "mount namespace of its own");
    assert!(
        result.contains(&format!("config = \"{root}/two/b\"")),
        "{result}"
    );
}
