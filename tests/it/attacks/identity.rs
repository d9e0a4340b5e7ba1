//! A command about an instance has at most the rights of the instance, whatever the instance
//! executes.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    ground::{Ground, Process, as_alice, race, start, tries, uid},
    notes::Notes,
};
use crate::{
    support::{CommandResult, until},
    users::give,
};

/// An instance with another program name: a copy of bash.
fn bash(to: &Path) {
    assert!(
        Command::new("cp")
            .arg("/bin/bash")
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

/// A script that records its process: `Uid`, `Gid`, `Groups`, capabilities and `NoNewPrivs`, one
/// per line.
const SELF: &str = "while IFS= read -r line; do case $line in Uid:*|Gid:*|Groups:*|Cap*|NoNewPrivs:*) echo \"$line\"; esac; done </proc/self/status";

/// Checks a note of [`SELF`] against the rights of the second user.
fn is_alice(note: &str) {
    let uid = uid();
    let ids = format!("{uid}\t{uid}\t{uid}\t{uid}");
    assert!(note.contains(&format!("Uid:\t{ids}\n")), "{note}");
    assert!(note.contains(&format!("Gid:\t{ids}\n")), "{note}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(
            note.contains(&format!("{set}:\t0000000000000000\n")),
            "{note}"
        );
    }
    assert!(
        note.contains("Groups:\t \n") || note.contains(&format!("Groups:\t{uid} \n")),
        "{note}"
    );
}

/// An instance that alternates between itself and a setuid program of root, with the same pid and
/// start time.
struct Changing {
    ground: Ground,
    /// The live config. The files for the commands lie beside it.
    live: PathBuf,
    /// One note for each command that ran.
    notes: Notes,
    /// A file that grows each time that it was the setuid program.
    turns: PathBuf,
    _process: Process,
}

impl Changing {
    fn new() -> Option<Self> {
        let (ground, uid) = (Ground::new()?, uid());
        let (exe, conf, notes) = (
            ground.alice("instance"),
            ground.folder("conf"),
            Notes::new(),
        );
        bash(&exe);
        // A setuid program of root that any user may start. It starts a program as root, which then
        // drops root.
        let (door, setuid) = (ground.fleet.path("door"), ground.fleet.path("door/env"));
        std::fs::create_dir(&door).unwrap();
        assert!(
            Command::new("cp")
                .arg("/usr/bin/env")
                .arg(&setuid)
                .status()
                .unwrap()
                .success()
        );
        std::fs::set_permissions(&setuid, std::fs::Permissions::from_mode(0o4755)).unwrap();
        nix::unistd::chown(&door, Some(0.into()), Some(uid.into())).unwrap();
        std::fs::set_permissions(&door, std::fs::Permissions::from_mode(0o750)).unwrap();
        let text = format!("{{ {SELF}; echo end; }} >{}\nexit 0 # one\n", notes.sink());
        let live = ground.file("conf/live", &text, 0o755);
        ground.file("words", &text, 0o755);
        let turns = ground.notebook("turns");
        let script = ground.program(
            "instance.sh",
            &format!(
                "trap : HUP\n[ -z \"$1\" ] || echo begun\nexec 8<>'{fifo}'\nprintf -v pause 0.0%02d $((RANDOM % 60))\nread -r -t $pause <&8\nprintf . >>'{turns}'\n\
                 exec '{setuid}' env env env env env env setpriv --reuid {uid} --regid {uid} --clear-groups -- '{exe}' \"$0\"\n",
                fifo = ground.alice("fifo").display(),
                turns = turns.display(),
                setuid = setuid.display(),
                exe = exe.display()
            ),
        );
        assert!(
            as_alice("mkfifo")
                .arg(ground.alice("fifo"))
                .status()
                .unwrap()
                .success()
        );
        let (process, _) = start(
            as_alice(&exe)
                .arg(script)
                .arg("first")
                .stderr(Stdio::null()),
        );
        give(&conf, uid, 0o755);
        Some(Self {
            ground,
            live,
            notes,
            turns,
            _process: process,
        })
    }

    fn group(&self, more: &str) {
        let (alice, live, uid) = (self.ground.alice.display(), self.live.display(), uid());
        self.ground.fleet.write(
            "fleet.toml",
            &format!(
                "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"300ms\"\nuser = \"{uid}\"\nspeaks = \"none\"\n\
                 match = {{ exe = \"{alice}/instance\" }}\nconfig = \"{live}\"\n{more}\n"
            ),
        );
    }

    fn turns(&self) -> u64 {
        self.turns.metadata().unwrap().len()
    }

    fn noted(&self) -> Vec<String> {
        // A note without an end belongs to a killed command.
        self.notes
            .each()
            .into_iter()
            .filter(|note| note.ends_with("end\n"))
            .collect()
    }

    /// Returns the number of commands that ran. Fails if one ran as root.
    fn ran(&self) -> usize {
        let users = format!("Uid:\t{0}\t{0}\t{0}\t{0}", uid());
        let is_other = |note: &String| {
            note.lines()
                .any(|line| line.starts_with("Uid:") && line != users)
        };
        assert!(
            !self.notes.each().iter().any(is_other),
            "a command ran as another user: {:?}",
            self.notes.each()
        );
        let notes = self.noted();
        notes.iter().for_each(|note| is_alice(note));
        notes.len()
    }

    fn new_config(&self, at: usize) -> Vec<String> {
        let text = std::fs::read_to_string(&self.live).unwrap();
        let path = self
            .ground
            .fleet
            .write("new", &(text + &format!("key_{at} = {at}\n")));
        vec!["--config".into(), path.display().to_string()]
    }

    fn broadcast(&self, at: usize, args: &[&str]) -> CommandResult {
        let config = self.new_config(at);
        let all: Vec<&str> = config
            .iter()
            .map(String::as_str)
            .chain(args.iter().copied())
            .collect();
        self.ground.broadcast(&all)
    }
}

/// Whether a command did not run because the instance was another process by then.
fn has_met(result: &CommandResult) -> bool {
    let all = format!("{}{}", result.stderr, result.json);
    all.contains("is no longer the process that was surveyed")
        || all.contains("runs with more groups")
}

/// The counts of the attempts.
#[derive(Debug, Default)]
struct Tried {
    /// The instance was the setuid program when its command was about to start.
    met: usize,
    /// Its command ran.
    ran: usize,
    /// It became the setuid program between the start and the end of a run.
    turned: usize,
}

/// Runs `act` at least `sample` times, and until every outcome of the race has occurred.
fn turning(changing: &Changing, sample: usize, act: impl Fn(usize) -> CommandResult) {
    let mut tried = Tried::default();
    race(tries(sample), |at| {
        let turns = changing.turns();
        let result = act(at);
        tried.met += usize::from(has_met(&result));
        tried.turned += usize::from(changing.turns() > turns);
        tried.ran = changing.ran();
        tried.met > 0 && tried.ran > 0 && tried.turned > 0
    });
    println!("setuid in between: {tried:?}");
    assert!(tried.met > 0, "the race was not run: {tried:?}");
    assert!(tried.ran > 0, "the race was not run: {tried:?}");
    assert!(tried.turned > 0, "the race was not run: {tried:?}");
    // Nor can a command become root by a setuid program itself.
    assert!(
        changing
            .noted()
            .iter()
            .all(|note| note.contains("NoNewPrivs:\t1\n"))
    );
}

#[test]
fn a_validator_never_runs_as_the_setuid_program_that_its_instance_executes_meanwhile() {
    let Some(changing) = Changing::new() else {
        return;
    };
    changing.group("confirm = []\nvalidate = [\"{exe}\", \"{candidate}\"]");
    let conf = changing.live.parent().unwrap();
    let words = changing.ground.alice("words");
    let swaps = changing
        .ground
        .attack("swap", &[conf, Path::new(".hello-"), &words]);
    turning(&changing, 30, |at| match at % 3 {
        0 => changing.broadcast(at, &["--dry-run"]),
        1 => changing.ground.run_json("status", ""),
        _ => changing.ground.run_json("doctor", ""),
    });
    assert!(swaps.count() > 0, "no staged file was ever replaced");
}

#[test]
fn no_assertion_and_no_restart_key_runs_as_the_setuid_program_of_its_instance() {
    let Some(changing) = Changing::new() else {
        return;
    };
    let live = changing.live.display().to_string();
    changing.group(&format!(
        "validate = []\n[[group.confirm]]\nexec = [\"{{exe}}\", \"{live}\"]\nequals = \"x\""
    ));
    turning(&changing, 8, |_| changing.ground.run_json("status", ""));
    changing.group("confirm = []\nvalidate = []\nrestart_keys = [\"{exe}\", \"{candidate}\"]");
    turning(&changing, 8, |at| changing.broadcast(at, &["--dry-run"]));
}

#[test]
fn no_process_of_the_same_user_tampers_with_a_command_before_its_exec() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let config = ground.config("web.toml");
    for _ in 0..10 {
        ground.serve_at_home(&config);
    }
    // Each instance is validated separately.
    ground.group("validate = [\"true\", \"{pid}\"]");
    let grasp = ground.attack("grasp", &[]);
    race(tries(20).div_ceil(10), |at| {
        ground.run_json("dry-run", &format!("x{at}")).expect(0);
        grasp.count() > 0
    });
    println!(
        "stages of hello that were seen as the second user: {}",
        grasp.count()
    );
    assert!(grasp.count() > 0, "no stage was ever seen");
    assert_eq!(grasp.got(), 0, "a stage was looked into, or traced");
}

/// Starts an instance that ends on a bad config. Its directory is exchanged, so its executable is
/// another one by then.
fn dying(ground: &Ground, revive: &str) -> (Process, PathBuf) {
    let (exe, notes, work, uid) = (
        ground.alice("instance"),
        ground.notebook("notes"),
        ground.folder("work"),
        uid(),
    );
    bash(&exe);
    let live = ground.file("live", "good\n", 0o644);
    let marker = ground.roots.join("marker");
    std::fs::create_dir(ground.roots.join("inner")).unwrap();
    std::fs::write(ground.roots.join("inner/secret"), "root's words\n").unwrap();
    std::os::unix::fs::symlink(ground.roots.join("inner"), ground.alice("link")).unwrap();
    // The replacement, which records its user.
    let other = format!(
        "#!/bin/bash\n{{ {SELF}; cut -d' ' -f6 /proc/$$/stat; cat secret; echo end; }} >>'{}' 2>/dev/null\n: >'{}'\nexit 3\n",
        notes.display(),
        marker.display()
    );
    ground.file("other", &other, 0o755);
    let on_signal = format!(
        "if grep -q bad '{0}'; then mv '{1}' '{2}'; exit 3; fi",
        live.display(),
        ground.alice("other").display(),
        exe.display()
    );
    let script = ground.program(
        "dying.sh",
        &format!("trap \"{on_signal}\" HUP\necho begun\nexec 8<>'{}'\nwhile :; do read -r -t 0.01 <&8; done\n", ground.alice("fifo").display()),
    );
    assert!(
        as_alice("mkfifo")
            .arg(ground.alice("fifo"))
            .status()
            .unwrap()
            .success()
    );
    let (process, _) = start(as_alice(&exe).arg(script).current_dir(&work));
    ground.fleet.write(
        "fleet.toml",
        &format!(
            "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ntimeout = \"300ms\"\nuser = \"{uid}\"\nspeaks = \"none\"\nvalidate = []\n\
             match = {{ exe = \"{}\" }}\nconfig = \"{}\"\n{revive}\n[[group.confirm]]\nexec = [\"echo\"]\nequals = \"never\"\n",
            exe.display(),
            live.display()
        ),
    );
    (process, notes)
}

#[test]
fn revive_and_the_restart_command_run_as_the_user_of_the_instance() {
    let Some(ground) = Ground::new() else { return };
    let (process, notes) = dying(&ground, "revive = [\"{exe}\", \"{args}\"]");
    let marker = ground.roots.join("marker");
    let bad = ground.fleet.write("bad", "bad\n");
    let result = ground.broadcast(&["--config", bad.to_str().unwrap()]);
    let text = || std::fs::read_to_string(&notes).unwrap();
    println!("{}", result.stderr);
    until("it was started again", || text().contains("end\n"));
    assert!(!marker.exists(), "it was started as root: {}", text());
    is_alice(&text());
    let session = text().lines().find_map(|line| line.parse::<i32>().ok());
    assert!(
        session
            .is_some_and(|session| Some(session)
                != nix::unistd::getsid(None).ok().map(nix::unistd::Pid::as_raw)),
        "{}",
        text()
    );
    drop(process);
    let hint = result
        .stderr
        .lines()
        .map(str::trim)
        .find(|line| line.contains("setpriv --reuid"))
        .unwrap_or_else(|| panic!("{}", result.stderr));
    let exchanges = ground.attack("exchange", &[&ground.alice("work"), &ground.alice("link")]);
    let before = exchanges.count();
    race(tries(50), |_| {
        let _ = Command::new("sh").args(["-c", hint]).output().unwrap();
        assert!(!marker.exists(), "it ran as root: {hint}");
        exchanges.count() > before && text().matches("end\n").count() > 1
    });
    assert!(
        text().matches("end\n").count() > 1,
        "the hint starts it: {hint}\n{}",
        text()
    );
    assert!(
        !text().contains("root's words"),
        "it was started in a directory of root's: {hint}"
    );
    assert!(exchanges.count() > before);
    text()
        .split("end\n")
        .filter(|note| note.contains("Uid"))
        .for_each(is_alice);
}
