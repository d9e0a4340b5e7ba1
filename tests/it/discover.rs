//! Discovery: every key of `match`, leaders and workers, and unusual processes. The processes are
//! copies of a shell.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{CommandResult, Fleet, until};

/// The script of the shells: runs each line of its input.
const SCRIPT: &str = "while read -r line; do eval \"$line\"; done\n";

fn is_root() -> bool {
    crate::support::runs_as_root(
        "only root can start processes of other users, or in other control groups",
    )
}

fn as_i32(pid: u32) -> i32 {
    i32::try_from(pid).unwrap()
}

/// A server. Killed by its pid when dropped.
struct Server(Child);

impl Server {
    /// Starts it and reads its address from the first line.
    fn start(house: &House, args: &[&str], config: &Path) -> Self {
        let mut command = Command::new(house.0.exe());
        let mut child = command
            .arg("serve")
            .args(args)
            .arg("--config")
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let server = Self(child);
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        assert!(!url.is_empty());
        server
    }

    fn pid(&self) -> i32 {
        as_i32(self.0.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell that runs its standard input. It and its children are killed by pid when dropped.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    started: Vec<i32>,
}

impl Shell {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        let mut shell = Self {
            child,
            stdin,
            stdout,
            started: Vec::new(),
        };
        // Its exec is complete once it answers.
        assert_eq!(shell.tell("echo here"), "here");
        shell
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.stdin, "{command}").unwrap();
        let mut result = String::new();
        self.stdout.read_line(&mut result).unwrap();
        result.trim().to_owned()
    }

    fn pid(&self) -> i32 {
        as_i32(self.child.id())
    }

    /// Starts a child that waits forever, with a command line of one string.
    fn worker(&mut self, exe: &Path, title: &str) -> i32 {
        let fifo = exe.with_extension("fifo");
        if !fifo.exists() {
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        }
        let pid = self
            .tell(&format!(
                "(exec -a '{title}' '{}' <>'{}' >/dev/null) & echo $!",
                exe.display(),
                fifo.display()
            ))
            .parse()
            .unwrap();
        self.started.push(pid);
        until("the worker has its title", || words(pid) == title);
        pid
    }

    /// Ends only the shell.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in &self.started {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }
}

fn words(pid: i32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
        .replace('\0', " ")
        .trim()
        .to_owned()
}

/// A folder with `hello` and copies of a shell.
struct House(Fleet);

impl House {
    fn new() -> Self {
        let house = Self(Fleet::start(0));
        std::fs::set_permissions(house.0.dir.path(), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Copies the shell to this name. Another process does so: a file open for writing here could
    /// not be executed.
    fn shell(&self, name: &str) -> PathBuf {
        let exe = self.path(name);
        std::fs::create_dir_all(exe.parent().unwrap()).unwrap();
        assert!(
            Command::new("cp")
                .arg("/bin/bash")
                .arg(&exe)
                .status()
                .unwrap()
                .success()
        );
        exe
    }

    /// Writes a script in the folder, which distinguishes the processes of an interpreter.
    fn script(&self, name: &str) -> PathBuf {
        self.0.write(name, SCRIPT)
    }

    fn group(&self, keys: &str) {
        self.0.write(
            "fleet.toml",
            &format!(
                "version = 1\n[[group]]\nname = \"g\"\nreloads = true\nconfirm = []\n{keys}\n"
            ),
        );
    }

    /// Returns the pids that a group finds, and the result.
    fn found(&self, keys: &str) -> (Vec<i32>, CommandResult) {
        self.group(keys);
        let result = self.0.status();
        let rows = result.json["instances"]
            .as_array()
            .unwrap_or_else(|| panic!("{keys}: {}", result.stderr));
        (
            rows.iter()
                .map(|row| i32::try_from(row["pid"].as_i64().unwrap()).unwrap())
                .collect(),
            result,
        )
    }

    fn finds(&self, keys: &str, pids: &[i32]) {
        let (found, result) = self.found(keys);
        let mut pids = pids.to_vec();
        pids.sort_unstable();
        assert_eq!(found, pids, "{keys}\n{}\n{:#}", result.stderr, result.json);
    }

    /// Returns the message of a broadcast that is refused.
    fn refused(&self, keys: &str, code: i32) -> String {
        self.group(keys);
        self.0.broadcast(&[]).expect(code).stderr
    }
}

#[test]
fn an_own_process_that_cannot_be_looked_at_is_refused_and_not_skipped() {
    if !crate::support::runs_as_root("a root without CAP_SYS_PTRACE looks at another root") {
        return;
    }
    let house = House::new();
    let one = Shell::start(Command::new(house.shell("unseen")).arg(house.script("run")));
    house.group("match = { exe = \"unseen\" }");
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "--"])
        .arg(house.0.exe())
        .args(["status", "--fleet"])
        .arg(house.path("fleet.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains(&one.pid().to_string()), "{text}");
    assert!(text.contains("may be one of group `g`"), "{text}");
    assert!(!text.contains("Skipped"), "{text}");
}

#[test]
fn executables_match_by_name_path_or_glob_even_if_replaced() {
    let house = House::new();
    for name in [
        "short",
        "of-many-more-than-sixteen-signs",
        "a b) c (d",
        "R S) 1 (2 3",
    ] {
        let exe = house.shell(&format!("{name}/{name}"));
        let one = Shell::start(&mut Command::new(&exe));
        let pid = [one.pid()];
        house.finds(
            &format!(
                "match = {{ exe = \"{name}\", args = [] }}\nexclude = {{ cgroup = \"/none/such\" }}"
            ),
            &pid,
        );
        house.finds(&format!("match = {{ exe = \"{}\" }}", exe.display()), &pid);
        house.finds(
            &format!(
                "match = {{ exe = \"{}/*/{name}\" }}",
                house.0.dir.path().display()
            ),
            &pid,
        );
        house.finds(
            &format!(
                "match = {{ exe = [\"no-such\", \"{}*\"] }}\nexclude = {{ exe = \"/usr/*\" }}",
                &name[..3]
            ),
            &pid,
        );
        house.finds(
            &format!(
                "match = {{ exe = \"{}/other/{name}\" }}",
                house.0.dir.path().display()
            ),
            &[],
        );
        house.finds(
            &format!("match = {{ exe = \"{name}\" }}\nexclude = {{ exe = \"{name}\" }}"),
            &[],
        );
        // As an upgrade of the package does.
        std::fs::rename(house.shell(&format!("{name}/new")), &exe).unwrap();
        assert!(
            std::fs::read_link(format!("/proc/{}/exe", one.pid()))
                .unwrap()
                .to_string_lossy()
                .ends_with(" (deleted)")
        );
        house.finds(&format!("match = {{ exe = \"{name}\" }}"), &pid);
        house.finds(&format!("match = {{ exe = \"{}\" }}", exe.display()), &pid);
    }
}

#[test]
fn all_arguments_must_match_even_in_a_rewritten_command_line() {
    let house = House::new();
    let (exe, script) = (house.shell("many"), house.script("run"));
    let one = Shell::start(
        Command::new(&exe)
            .arg(&script)
            .args(["-c", "a b", "--mode=web"]),
    );
    let titled = Shell::start(Command::new(&exe).arg0("many: master of a b"));
    house.finds(
        "match = { exe = \"many\", args = [\"-c\", \"a b\", \"--mode=*\"] }",
        &[one.pid()],
    );
    house.finds(
        "match = { exe = \"many\", args = [\"-c\", \"--mode=api\"] }",
        &[],
    );
    house.finds(
        "match = { exe = \"many\", args = [[\"--mode=api\", \"--mode=web\"]] }",
        &[one.pid()],
    );
    house.finds(
        "match = { exe = \"many\", args = [\"master\", \"b\"] }",
        &[titled.pid()],
    );
    house.finds(
        "match = { exe = \"many\" }\nexclude = { args = [\"master\"] }",
        &[one.pid()],
    );
    house.finds("match = { exe = \"many\" }", &[one.pid(), titled.pid()]);
}

#[test]
fn interpreted_programs_are_matched_by_their_script() {
    let house = House::new();
    // An interpreter is known by its name; this one understands `-m` well enough.
    let (python, viewer) = (house.shell("python3.11"), house.shell("viewer"));
    let name = format!("daemon-{}", std::process::id());
    let script = house.script(&name);
    let dir = house.0.dir.path();
    let by_path = Shell::start(
        Command::new(&python)
            .arg("-u")
            .arg(&script)
            .args(["-c", "x"]),
    );
    let by_module = Shell::start(Command::new(&python).args(["-m", &name]).current_dir(dir));
    let by_title = Shell::start(Command::new(&python).arg0(format!("{name}: master [app]")));
    // It only opens the file, as an editor does.
    let other = Shell::start(Command::new(&viewer).arg(&script));
    let all = [by_path.pid(), by_module.pid(), by_title.pid()];
    house.finds(&format!("match = {{ script = \"{name}\" }}"), &all);
    house.finds(
        &format!(
            "match = {{ script = [\"none\", \"{}?\"], exe = \"python3*\" }}",
            &name[..name.len() - 1]
        ),
        &all,
    );
    house.finds(
        &format!("match = {{ script = \"{name}\", args = [\"-c\"] }}"),
        &[by_path.pid()],
    );
    house.finds(
        &format!("match = {{ script = \"{}\" }}", script.display()),
        &[by_path.pid(), by_module.pid()],
    );
    house.finds(
        &format!(
            "match = {{ script = \"{name}\" }}\nexclude = {{ script = \"{}\" }}",
            script.display()
        ),
        &[by_title.pid()],
    );
    house.finds(
        &format!("match = {{ script = \"{name}\", exe = \"viewer\" }}"),
        &[other.pid()],
    );
    drop((by_path, by_module, by_title, other));
    let real = format!("real-{}", std::process::id());
    let file = house.0.write(
        &real,
        "#!/usr/bin/env python3\nimport sys\nfor line in sys.stdin: print('here', flush=True)\n",
    );
    let mut python = Shell::start(Command::new("python3").arg(&file));
    house.finds(
        &format!("match = {{ script = \"{real}\" }}"),
        &[python.pid()],
    );
    assert_eq!(python.tell(""), "here", "and it runs on");
}

#[test]
fn users_match_by_name_or_number_and_a_group_may_name_several() {
    if !is_root() {
        return;
    }
    let house = House::new();
    let exe = house.shell("whose");
    let mine = Shell::start(&mut Command::new(&exe));
    let theirs = Shell::start(
        Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
            ])
            .arg(&exe),
    );
    let (me, other) = (mine.pid(), theirs.pid());
    let (found, result) = house.found("match = { exe = \"whose\" }");
    assert!(found == [me], "{}", result.stderr);
    assert!(
        result
            .stderr
            .contains(&format!("pid {other} belongs to uid 65534")),
        "{}",
        result.stderr
    );
    house.finds(
        "match = { exe = \"whose\" }\nuser = [\"{self}\", \"65534\", \"no-such-user-here\"]",
        &[me, other],
    );
    house.finds("match = { exe = \"whose\" }\nuser = \"{self}\"", &[me]);
    house.finds("match = { exe = \"whose\" }\nuser = \"nobody\"", &[other]);
    house.finds(
        "match = { exe = \"whose\", user = \"nobody\" }\nuser = [\"nobody\", \"{self}\"]",
        &[other],
    );
    house.finds(
        "match = { exe = \"whose\", user = \"0\" }\nuser = [\"nobody\", \"root\"]",
        &[me],
    );
    house.finds("match = { exe = \"whose\" }\nuser = [\"nobody\", \"{self}\"]\nexclude = { user = \"nobody\" }", &[me]);
    let result = house.refused(
        "match = { exe = \"whose\" }\nuser = \"no-such-user-here\"",
        3,
    );
    assert!(
        result.contains("error: no user `no-such-user-here`"),
        "{result}"
    );
}

/// A new control group. Removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts
            .lines()
            .map(|l| l.split(' ').collect::<Vec<_>>())
            .find(|f| f[2] == "cgroup2")
            .map(|f| PathBuf::from(f[1]));
        let made = mount
            .map(|m| {
                m.join(format!("hello-test-{}", std::process::id()))
                    .join(name)
            })
            .filter(|dir| std::fs::create_dir_all(dir).is_ok());
        if made.is_none() {
            crate::support::skipped("no control group of the unified hierarchy can be made here");
        }
        made.map(Self)
    }

    fn take(&self, pid: i32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel needs a moment to release the processes that were killed in it.
        until("the control group is empty", || {
            std::fs::remove_dir(&self.0).is_ok()
        });
        let _ = std::fs::remove_dir(self.0.parent().unwrap());
    }
}

#[test]
fn processes_match_by_control_group_and_unit() {
    let Some(cgroup) = Cgroup::new("web-a.service") else {
        return;
    };
    let house = House::new();
    let exe = house.shell("grouped");
    let (inside, outside) = (
        Shell::start(&mut Command::new(&exe)),
        Shell::start(&mut Command::new(&exe)),
    );
    cgroup.take(inside.pid());
    let pid = [inside.pid()];
    house.finds("match = { unit = \"web-a\", exe = \"grouped\" }", &pid);
    house.finds("match = { unit = \"web-a.service\" }", &pid);
    house.finds("match = { unit = \"web\", exe = \"grouped\" }", &[]);
    house.finds(
        "match = { cgroup = \"*/web-?.service\", exe = \"grouped\" }",
        &pid,
    );
    house.finds(
        &format!(
            "match = {{ cgroup = \"/hello-test-{}/*\" }}",
            std::process::id()
        ),
        &pid,
    );
    house.finds(
        "match = { exe = \"grouped\" }\nexclude = { unit = \"web-a\" }",
        &[outside.pid()],
    );
    drop(inside);
}

/// `systemctl` is called by its absolute path, so a mount namespace replaces it.
#[test]
fn the_main_process_of_a_unit_is_the_leader() {
    if !is_root() {
        return;
    }
    let Some(cgroup) = Cgroup::new("main-b.service") else {
        return;
    };
    let house = House::new();
    let exe = house.shell("mainly");
    let mut main = Shell::start(&mut Command::new(&exe));
    // A process started by hand in the unit does not lead; a leader is found by its position in the
    // tree.
    let (helper, below) = (
        Shell::start(&mut Command::new(&exe)),
        main.worker(&exe, "mainly below"),
    );
    [main.pid(), helper.pid(), below]
        .iter()
        .for_each(|pid| cgroup.take(*pid));
    house.finds("match = { unit = \"main-b\" }", &[main.pid(), helper.pid()]);
    let says = |answer: &str| {
        let systemctl = house.0.write(
            "systemctl",
            &format!("#!/bin/sh\n[ \"$5\" = main-b.service ] && {answer}\n"),
        );
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
        house.group("match = { unit = \"main-b\" }");
        let script = "mount --bind \"$0\" /usr/bin/systemctl || exit 99; exec \"$1\" status -o json --fleet \"$2\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(&systemctl)
            .arg(house.0.exe())
            .arg(house.path("fleet.toml"));
        let output = command.output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(
            json["instances"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["pid"].as_i64().unwrap())
                .collect::<Vec<_>>(),
        )
    };
    if !Path::new("/usr/bin/systemctl").exists() || says("echo 0").is_none() {
        crate::support::skipped("no systemctl that another could be bound over");
        return;
    }
    let pids = |pids: &[i32]| Some(pids.iter().copied().map(i64::from).collect::<Vec<_>>());
    assert_eq!(says(&format!("echo {below}")), pids(&[below]));
    assert_eq!(
        says(&format!("echo {}", helper.pid())),
        pids(&[helper.pid()])
    );
    // These answers decide nothing: a unit without a process, another unit, no manager.
    for answer in ["echo 0", "echo 1", "exit 1"] {
        assert_eq!(says(answer), pids(&[main.pid(), helper.pid()]), "{answer}");
    }
    drop((main, helper));
}

#[test]
fn a_pid_file_matches_exactly_its_process_and_a_stale_one_is_reported() {
    let house = House::new();
    let exe = house.shell("filed");
    let (mut one, _other) = (
        Shell::start(&mut Command::new(&exe)),
        Shell::start(&mut Command::new(&exe)),
    );
    let _below = one.worker(&exe, "filed worker");
    let file = house.path("run.pid");
    let by_file = format!(
        "match = {{ pid_file = \"{}\", exe = \"filed\" }}",
        file.display()
    );
    let writes = |text: &str| house.0.write("run.pid", text);
    assert!(house.refused(&by_file, 3).contains(&format!(
        "error: pid file `{}`: there is none",
        file.display()
    )));
    writes(&format!("{}\n", one.pid()));
    house.finds(&by_file, &[one.pid()]);
    house.finds(
        &format!("match = {{ pid_file = \"{}\" }}", file.display()),
        &[one.pid()],
    );
    house.finds(
        &format!(
            "match = {{ exe = \"filed\" }}\nexclude = {{ pid_file = \"{}\" }}",
            file.display()
        ),
        &[_other.pid()],
    );
    let all = format!(
        "match = {{ exe = \"filed\" }}\nexclude = {{ pid_file = \"{}\" }}",
        house.path("none.pid").display()
    );
    house.finds(&all, &[one.pid(), _other.pid()]);
    // Another program, a thread, no number, and an ended process.
    writes(&std::process::id().to_string());
    let result = house.refused(&by_file, 3);
    assert!(
        result.contains(&format!(
            "pid {} is named by `{}` and is no process of group `g`",
            std::process::id(),
            file.display()
        )),
        "{result}"
    );
    writes("soon\n");
    let result = house.refused(&by_file, 3);
    assert!(
        result.contains(&format!(
            "pid file `{}`: it holds no process number",
            file.display()
        )),
        "{result}"
    );
    assert!(
        house
            .refused(
                &format!(
                    "match = {{ exe = \"filed\" }}\nexclude = {{ pid_file = \"{}\" }}",
                    file.display()
                ),
                3
            )
            .contains("no process number")
    );
    let gone = one.pid();
    writes(&gone.to_string());
    one.kill();
    let result = house.refused(&by_file, 3);
    assert!(
        result.contains(&format!(
            "pid {gone} is named by `{}` and is gone",
            file.display()
        )),
        "{result}"
    );
    assert_eq!(
        house.found(&by_file).1.code,
        7,
        "it is a fault in hello status as well"
    );
    house.group("match = { pid_file = \"run.pid\" }");
    assert!(house.0.broadcast(&[]).expect(2).stderr.contains("absolute"));
}

#[test]
fn as_root_a_pid_file_that_others_can_write_is_not_believed() {
    if !is_root() {
        return;
    }
    let house = House::new();
    let exe = house.shell("trusted");
    let one = Shell::start(&mut Command::new(&exe));
    let by_file = |file: &Path| {
        format!(
            "match = {{ pid_file = \"{}\", exe = \"trusted\" }}",
            file.display()
        )
    };
    let file = house.0.write("a.pid", &one.pid().to_string());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(
        house
            .refused(&by_file(&file), 3)
            .contains("users other than root")
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    nix::unistd::chown(&file, Some(65534.into()), None).unwrap();
    assert!(
        house
            .refused(&by_file(&file), 3)
            .contains("users other than root")
    );
    nix::unistd::chown(&file, Some(0.into()), None).unwrap();
    house.finds(&by_file(&file), &[one.pid()]);
    // Their directory, and a link in it to a file of root.
    std::fs::create_dir(house.path("theirs")).unwrap();
    let link = house.path("theirs/b.pid");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    house.finds(&by_file(&link), &[one.pid()]);
    nix::unistd::chown(&house.path("theirs"), Some(65534.into()), None).unwrap();
    let result = house.refused(&by_file(&link), 3);
    assert!(result.contains("which is not trusted"), "{result}");
    assert!(result.contains("through a symbolic link"), "{result}");
    // A pid file of the user itself is enough for a process of that user.
    let theirs = Shell::start(
        Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
            ])
            .arg(&exe),
    );
    let own = house.path("theirs/c.pid");
    std::fs::write(&own, theirs.pid().to_string()).unwrap();
    nix::unistd::chown(&own, Some(65534.into()), None).unwrap();
    house.finds(
        &format!("{}\nuser = \"65534\"", by_file(&own)),
        &[theirs.pid()],
    );
}

#[test]
fn listeners_match_by_port_address_path_and_option() {
    let house = House(Fleet::start(3));
    let config = house.0.write(
        "unix.toml",
        &format!(
            "message = \"u\"\nlisten = \"unix:{}\"\n",
            house.path("u.sock").display()
        ),
    );
    let unix = Server::start(&house, &[], &config);
    let port = |at: usize| {
        house
            .0
            .url(at)
            .trim_end_matches('/')
            .rsplit(':')
            .next()
            .unwrap()
            .to_owned()
    };
    let (first, second) = (house.0.pid(0), house.0.pid(1));
    // The parent shells do not match, although a child of theirs listens.
    house.finds(&format!("match = {{ port = {} }}", port(0)), &[first]);
    house.finds(
        &format!("match = {{ listens = \"tcp:{}\" }}", port(1)),
        &[second],
    );
    house.finds(
        &format!("match = {{ listens = \"tcp:127.0.0.1:{}\" }}", port(1)),
        &[second],
    );
    house.finds(
        &format!("match = {{ listens = \"tcp:127.0.0.2:{}\" }}", port(1)),
        &[],
    );
    house.finds(
        &format!("match = {{ port = {}, exe = \"no-such\" }}", port(0)),
        &[],
    );
    house.finds(
        &format!(
            "match = {{ listens = \"unix:{}/*.sock\" }}",
            house.0.dir.path().display()
        ),
        &[unix.pid()],
    );
    let exe = house
        .0
        .exe()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let not_first = format!(
        "match = {{ exe = \"{exe}\" }}\nexclude = {{ port = {} }}",
        port(0)
    );
    house.finds(&not_first, &[second, house.0.pid(2), unix.pid()]);
    drop(unix);
    // The command line of the process names the port.
    let config = house.0.write("option.toml", "message = \"o\"\n");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let option = Server::start(&house, &["--listen", &free], &config);
    house.finds(
        &format!("match = {{ exe = \"{exe}\", listens = \"{{arg:--listen}}\" }}"),
        &[option.pid()],
    );
}

#[test]
fn a_leader_matches_by_the_socket_of_its_child() {
    let house = House::new();
    let script = house.0.write(&format!("forks-{}", std::process::id()), "import os, socket, sys\nr, w = os.pipe()\npid = os.fork()\nif pid == 0:\n    s = socket.socket()\n    s.bind(('127.0.0.1', 0))\n    s.listen()\n    \
         os.write(w, str(s.getsockname()[1]).encode())\n    os.read(r, 0)\n    while True: s.accept()\nport = os.read(r, 9).decode()\n\
         for line in sys.stdin: print('here' if 'here' in line else f'{pid} {port}', flush=True)\n", );
    let mut parent = Shell::start(Command::new("python3").arg(&script));
    let result = parent.tell("who");
    let (child, port) = result.split_once(' ').unwrap();
    parent.started.push(child.parse().unwrap());
    house.finds(&format!("match = {{ port = {port} }}"), &[parent.pid()]);
    // A child of another executable counts for a parent that matches.
    let exe = house.shell("starts");
    let mut shell = Shell::start(&mut Command::new(&exe));
    let listen = house.path("s.sock");
    let serve = format!(
        "'{}' serve --config '{}' --listen unix:{} >/dev/null 2>&1 </dev/null & echo $!",
        house.0.exe().display(),
        house.path("web.toml").display(),
        listen.display()
    );
    let server = shell.tell(&serve).parse().unwrap();
    shell.started.push(server);
    until("it listens", || listen.exists());
    house.finds(
        &format!("match = {{ listens = \"unix:{}\" }}", listen.display()),
        &[server],
    );
    house.finds(
        &format!(
            "match = {{ listens = \"unix:{}\", exe = \"starts\" }}",
            listen.display()
        ),
        &[shell.pid()],
    );
}

const PATTERNS: &str = "leader = { args = [\"master\"] }\nworker = { args = [\"worker\"] }";

#[test]
fn the_leader_pattern_matches_leaders_and_never_workers() {
    let house = House::new();
    let exe = house.shell("led");
    let by_place = "match = { exe = \"led\" }".to_owned();
    let by_pattern = format!("{by_place}\n{PATTERNS}");
    let mut master = Shell::start(Command::new(&exe).arg0("led: master process led"));
    let (worker, other) = (
        master.worker(&exe, "led: worker process"),
        master.worker(&exe, "led: cache manager"),
    );
    let second = Shell::start(Command::new(&exe).arg0("led: master process led -c x"));
    house.finds(&by_place, &[master.pid(), second.pid()]);
    house.finds(&by_pattern, &[master.pid(), second.pid()]);
    // A pid list does not turn a worker into a leader either.
    for pid in [worker, other] {
        let result = house.refused(
            &format!(
                "{by_pattern}\ninstances = [ {{ pid = {} }}, {{ pid = {pid} }} ]",
                second.pid()
            ),
            5,
        );
        assert!(
            result.contains(&format!("pid {pid} is a worker of pid {}", master.pid())),
            "{result}"
        );
    }
    house.finds(
        &format!("{by_pattern}\ninstances = [ {{ pid = {} }} ]", second.pid()),
        &[second.pid()],
    );
    drop(second);
    // Workers whose master was killed stay alive, and nothing makes them reload.
    let group = format!("{by_pattern}\ncount = 1");
    let new = Shell::start(Command::new(&exe).arg0("led: master process led"));
    master.kill();
    until("the worker has lost its master", || {
        !std::fs::read_to_string(format!("/proc/{worker}/status"))
            .unwrap()
            .contains(&format!("PPid:\t{}", master.pid()))
    });
    let result = house.refused(&group, 5);
    assert!(
        result.contains(&format!("pid {worker} is a worker whose master is gone")),
        "{result}"
    );
    assert!(!result.contains(&format!("pid {other}")), "{result}");
    let (found, result) = house.found(&group);
    assert!(found.contains(&worker), "{:#}", result.json);
    assert!(result.code == 7, "{:#}", result.json);
    assert!(
        result.json.to_string().contains("whose master is gone"),
        "{:#}",
        result.json
    );
    house.finds(
        &format!("{group}\nexclude = {{ args = [\"worker\"] }}"),
        &[new.pid()],
    );
    drop(new);
    assert!(
        house.refused(&group, 5).contains("whose master is gone"),
        "also where no master is left"
    );
}

#[test]
fn two_masters_of_one_service_are_refused_by_name() {
    let house = House::new();
    let exe = house.shell("upgraded");
    let group = format!("match = {{ exe = \"upgraded\" }}\ncount = 1\n{PATTERNS}");
    let mut old = Shell::start(Command::new(&exe).arg0("upgraded: master process"));
    let _worker = old.worker(&exe, "upgraded: worker process");
    house.finds(&group, &[old.pid()]);
    let new = old.worker(&exe, "upgraded: master process 2");
    let result = house.refused(&group, 5);
    for (one, other) in [(new, old.pid()), (old.pid(), new)] {
        let why = format!(
            "pid {one} is being upgraded: pid {other} and pid {one} are both masters; finish or abort the upgrade first"
        );
        assert!(result.contains(&why), "{why}\n{result}");
    }
    let (found, result) = house.found(&group);
    assert!(found.contains(&new), "{:#}", result.json);
    assert!(found.contains(&old.pid()), "{:#}", result.json);
    assert!(result.code == 7, "{:#}", result.json);
    kill(Pid::from_raw(new), Signal::SIGKILL).unwrap();
    until("the upgrade is aborted", || {
        !Path::new(&format!("/proc/{new}/exe")).exists()
    });
    house.finds(&group, &[old.pid()]);
}

#[test]
fn a_worker_that_was_just_forked_is_no_second_master() {
    let house = House::new();
    let exe = house.shell("forks");
    let mut master = Shell::start(Command::new(&exe).arg0("forks: master process"));
    let group = format!("match = {{ exe = \"forks\" }}\n{PATTERNS}");
    // The fifo on which it waits exists.
    let _worker = master.worker(&exe, "forks: worker process");
    let fifo = exe.with_extension("fifo");
    // A busy machine may delay its title, so there is another attempt.
    until(
        "a process with the title of its master is waited for",
        || {
            let line = format!(
                "(read -t 0.2 _ <>'{0}'; exec -a 'forks: worker process' '{1}' <>'{0}' >/dev/null) & echo $!",
                fifo.display(),
                exe.display()
            );
            let pid: i32 = master.tell(&line).parse().unwrap();
            master.started.push(pid);
            house.found(&group).0 == [master.pid()]
        },
    );
}

#[test]
fn without_a_leader_the_processes_that_match_no_pattern_are_named() {
    let house = House::new();
    let exe = house.shell("single");
    let one = Shell::start(Command::new(&exe).arg0("single: alone in the world"));
    let result = house.refused(&format!("match = {{ exe = \"single\" }}\n{PATTERNS}"), 3);
    assert!(
        result.contains(&format!(
            "pid {} does not fit the `leader` of group `g`",
            one.pid()
        )),
        "{result}"
    );
}

#[test]
fn the_child_of_an_excluded_process_is_not_promoted_to_leader() {
    let house = House::new();
    let exe = house.shell("started");
    let mut master = Shell::start(Command::new(&exe).arg0("started: one"));
    let worker = master.worker(&exe, "started: two");
    let group = "match = { exe = \"started\" }\nexclude = { args = [\"one\"] }";
    let result = house.refused(group, 3);
    assert!(
        result.contains(&format!(
            "pid {worker} was started by pid {}, which group `g` excludes",
            master.pid()
        )),
        "{result}"
    );
    // Unless the group declares it the leader, as under a watchdog.
    house.finds(
        &format!("{group}\nleader = {{ args = [\"two\"] }}"),
        &[worker],
    );
    let other = Shell::start(Command::new(&exe).arg0("started: three"));
    let (found, result) = house.found(group);
    assert!(found == [other.pid()], "{}", result.stderr);
    assert!(!result.stderr.contains("Skipped"), "{}", result.stderr);
}

#[test]
fn the_pid_file_of_a_group_names_the_leader() {
    let house = House::new();
    let exe = house.shell("watched");
    // The watchdog is the same program, and passes no signal on.
    let mut watchdog = Shell::start(
        Command::new(&exe)
            .arg(house.script("run"))
            .arg("-p")
            .arg(house.path("run.pid"))
            .current_dir(house.0.dir.path()),
    );
    let server = watchdog.worker(&exe, "watched: serves");
    let alone = Shell::start(&mut Command::new(&exe));
    for place in [
        "{arg:-p}".to_owned(),
        "{cwd}/run.pid".to_owned(),
        house.path("run.pid").display().to_string(),
    ] {
        let group =
            format!("match = {{ exe = \"watched\" }}\npid_file = [\"/no/such.pid\", \"{place}\"]");
        // A missing pid file, or one of another process, decides nothing.
        let _ = std::fs::remove_file(house.path("run.pid"));
        house.finds(&group, &[watchdog.pid(), alone.pid()]);
        house.0.write("run.pid", &std::process::id().to_string());
        house.finds(&group, &[watchdog.pid(), alone.pid()]);
        house.0.write("run.pid", &server.to_string());
        house.finds(&group, &[server, alone.pid()]);
    }
}

#[test]
fn workers_of_another_user_are_reported_only_without_a_master() {
    if !is_root() {
        return;
    }
    let house = House::new();
    let exe = house.shell("drops");
    let group = format!("match = {{ exe = \"drops\" }}\n{PATTERNS}");
    let mut master = Shell::start(Command::new(&exe).arg0("drops: master"));
    let fifo = exe.with_extension("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    std::fs::set_permissions(&fifo, std::fs::Permissions::from_mode(0o666)).unwrap();
    // As nginx does: the master is root's, its workers are not.
    let drop_to = format!(
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups -- '{}' -c \"exec -a 'drops: worker' '{}' <>'{}'\"",
        exe.display(),
        exe.display(),
        fifo.display()
    );
    let worker: i32 = master
        .tell(&format!("({drop_to}) >/dev/null & echo $!"))
        .parse()
        .unwrap();
    master.started.push(worker);
    until("the worker has its title", || {
        words(worker) == "drops: worker"
    });
    let (found, result) = house.found(&group);
    assert!(found == [master.pid()], "{}", result.stderr);
    assert!(
        !result.stderr.contains(&worker.to_string()),
        "{}",
        result.stderr
    );
    master.kill();
    let result = house.refused(&group, 5);
    assert!(
        result.contains(&format!("pid {worker} is a worker whose master is gone")),
        "{result}"
    );
}

#[test]
fn listed_pids_without_a_process_are_refused() {
    let house = House::new();
    let exe = house.shell("listed");
    let mut one = Shell::start(&mut Command::new(&exe));
    // The shell became another program that does not reap its child, so that stays a zombie.
    let zombie: i32 = one
        .tell("(read) </dev/null & echo $!; exec 2>/dev/null")
        .parse()
        .unwrap();
    let mut lazy = Command::new(&exe).args(["-c", "exit 0"]).spawn().unwrap();
    until("it has ended", || {
        std::fs::read_to_string(format!("/proc/{}/stat", lazy.id()))
            .unwrap()
            .contains(") Z ")
    });
    let listed =
        |pid: i64| format!("match = {{ exe = \"listed\" }}\ninstances = [ {{ pid = {pid} }} ]");
    let result = house.refused(&listed(lazy.id().into()), 3);
    assert!(result.contains("runs no program"), "{result}");
    let (found, result) = house.found("match = { exe = \"listed\" }");
    assert!(found == [one.pid()], "{}", result.stderr);
    assert!(
        !result.stderr.contains(&zombie.to_string()),
        "{}",
        result.stderr
    );
    lazy.wait().unwrap();
    assert!(
        house
            .refused(&listed(lazy.id().into()), 3)
            .contains("is gone")
    );
    assert!(
        house
            .refused(&listed(i32::MAX.into()), 3)
            .contains("is gone")
    );
    let kernel = procfs::process::all_processes()
        .unwrap()
        .flatten()
        .find(|p| p.stat().is_ok_and(|s| s.flags & 0x0020_0000 != 0));
    match kernel {
        Some(thread) => assert!(
            house
                .refused(&listed(thread.pid().into()), 3)
                .contains("runs no program")
        ),
        None => crate::support::skipped("no thread of the kernel is to be seen here"),
    }
    let result = house.refused(&listed(std::process::id().into()), 3);
    assert!(result.contains("is no process of group `g`"), "{result}");
}

#[test]
fn a_process_that_cannot_be_inspected_is_named_if_it_may_match() {
    if !is_root() {
        return;
    }
    let house = House::new();
    let exe = house.shell("hidden-of-many-more-than-sixteen");
    let one = Shell::start(Command::new(&exe).arg(house.script("run")).arg("serve"));
    let titled = Shell::start(Command::new(house.shell("python3")).arg0("hidden-app: master [x]"));
    // Every user can read their command lines. Only they and root can read their executables and
    // sockets.
    let look = |keys: &str| {
        house.group(keys);
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
            ])
            .arg(house.0.exe())
            // This user cannot read the state of root.
            .env("HOME", "/nonexistent");
        let output = command
            .args(["status", "--fleet"])
            .arg(house.path("fleet.toml"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        )
    };
    for exe in [
        "hidden-of-many-more-than-sixteen",
        "hidden-of-many*",
        &exe.display().to_string(),
    ] {
        let (code, result) = look(&format!(
            "match = {{ exe = \"{exe}\", args = [\"serve\"] }}"
        ));
        assert!(code == Some(3), "{exe}: {result}");
        assert!(
            result.contains(&format!("Skipped pid {} cannot be looked at", one.pid())),
            "{exe}: {result}"
        );
        let (_, result) = look(&format!(
            "match = {{ exe = \"{exe}\", args = [\"other\"] }}"
        ));
        assert!(!result.contains("Skipped"), "{result}");
    }
    let (_, result) = look("match = { script = \"hidden-app\" }");
    assert!(
        result.contains(&format!("Skipped pid {} cannot be looked at", titled.pid())),
        "{result}"
    );
    let (_, result) = look("match = { exe = \"another\" }");
    assert!(!result.contains("Skipped"), "{result}");
    // Processes cannot be distinguished by a socket that this user cannot see, which is reported.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (code, result) = look(&format!("match = {{ port = {port} }}"));
    assert!(code == Some(7), "{result}");
    assert!(
        result.contains("a process that may listen where group `g` says cannot be looked at"),
        "{result}"
    );
    drop(listener);
    let (code, result) = look(&format!("match = {{ port = {port} }}"));
    assert!(code == Some(3), "{result}");
    assert!(!result.contains("cannot be looked at"), "{result}");
}

#[test]
fn processes_that_come_and_go_do_not_disturb_the_scan() {
    let house = House::new();
    let exe = house.shell("stays");
    let one = Shell::start(&mut Command::new(&exe));
    let mut busy = Shell::start(&mut Command::new(house.shell("busy")));
    // Until it is killed, it starts programs of the group that end at once, and leaves zombies.
    writeln!(
        busy.stdin,
        "while :; do '{}' -c 'exit 0' </dev/null; ('{}' -c 'exit 0' </dev/null &); done",
        exe.display(),
        exe.display()
    )
    .unwrap();
    for _ in 0..30 {
        let (found, result) = house.found("match = { exe = \"stays\" }");
        assert!(
            found.contains(&one.pid()),
            "{}\n{:#}",
            result.stderr,
            result.json
        );
        assert!(!result.stderr.contains("Skipped"), "{}", result.stderr);
    }
}
