//! The candidate at its live path is visible to the validator only.

use std::{
    collections::BTreeSet,
    io::Read,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use super::{
    ground::{Ground, as_alice, race, start, tries, uid},
    notes::Notes,
};
use crate::support::{until, write};

/// Returns the mount namespaces with the candidate at the path, and that of a descendant of `run`.
fn seeing(path: &Path, run: i32) -> (BTreeSet<String>, Option<String>) {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    let (mut all, mut own) = (BTreeSet::new(), None);
    for pid in pids {
        // A process that ends meanwhile has no namespace.
        let Ok(space) = std::fs::read_link(format!("/proc/{pid}/ns/mnt")) else {
            continue;
        };
        if std::fs::read_to_string(format!("/proc/{pid}/root{}", path.display()))
            .is_ok_and(|text| text.contains("two"))
        {
            let space = space.display().to_string();
            if descends(pid, run) {
                own = Some(space.clone());
            }
            all.insert(space);
        }
    }
    (all, own)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

fn descends(mut pid: i32, from: i32) -> bool {
    loop {
        match parent(pid) {
            Some(parent) if parent == from => return true,
            Some(parent) if parent > 0 => pid = parent,
            _ => return false,
        }
    }
}

#[test]
fn the_candidate_at_the_live_path_is_visible_to_the_validator_only() {
    let Some((ground, server)) = Ground::serving() else {
        return;
    };
    let config = ground.alice("web.toml");
    // Other namespaces receive each mount of this one while that is shared.
    let mut others = Vec::new();
    for sharing in ["shared", "slave"] {
        let mut unshare = std::process::Command::new("unshare");
        std::os::unix::process::CommandExt::process_group(&mut unshare, 0);
        unshare
            .args([
                "--mount",
                "--propagation",
                sharing,
                "sh",
                "-c",
                "echo begun; exec sleep 600",
            ])
            .stdin(Stdio::null());
        others.push(start(&mut unshare).0);
    }
    let (reader, _) = start(as_alice("sh").args(["-c", "echo begun; exec sleep 600"]));
    // It reports what it reads, and waits until the connection is closed.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!(
        "/dev/tcp/127.0.0.1/{}",
        listener.local_addr().unwrap().port()
    );
    let text = format!(
        "#!/bin/bash\nexec 3<>{address}\ncat '{}' >&3\nread -r <&3\nexit 0\n",
        config.display()
    );
    let validator = ground.program("validator", &text);
    ground.group(&format!("validate = [\"{validator}\"]"));
    let mut run = ground
        .fleet
        .command(&["-q", "--dry-run", "--set", "message=two"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(run.id()).unwrap();
    let (mut waits, mut there) = (None, String::new());
    until("the validator waits", || {
        waits = listener.accept().ok();
        waits.is_some() || run.try_wait().unwrap().is_some()
    });
    let (mut validator, _) = waits.expect("it ended before it validated");
    validator.set_nonblocking(false).unwrap();
    validator
        .set_read_timeout(Some(crate::support::RUN_LIMIT))
        .unwrap();
    while !there.contains("listen") {
        let mut piece = [0; 256];
        let length = validator.read(&mut piece).unwrap();
        assert!(length > 0, "it has read only {there:?}");
        there.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
    assert!(
        there.contains("two"),
        "it sees the candidate at the live path: {there}"
    );
    let (seeing, own) = seeing(&config, pid);
    assert!(own.is_some(), "it is there for itself: {seeing:?}");
    assert!(
        seeing.iter().all(|space| Some(space) == own.as_ref()),
        "another namespace has it too: {seeing:?}, not only {own:?}"
    );
    for other in others
        .iter()
        .map(super::ground::Process::pid)
        .chain([server, reader.pid(), pid])
    {
        let text =
            std::fs::read_to_string(format!("/proc/{other}/root{}", config.display())).unwrap();
        assert!(
            !text.contains("two"),
            "pid {other} reads the candidate at the live path"
        );
    }
    drop(validator);
    run.wait().unwrap();
    assert!(self::seeing(&config, pid).0.is_empty());
}

/// The number of files. Each takes a moment to mount, in which its directory must be exchanged.
/// With this many, the last is mounted milliseconds after the first lookup.
const MANY: usize = 40;

#[test]
fn the_mount_for_a_validator_covers_no_file_of_root() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let (conf, link, etc, new) = (
        ground.folder("conf"),
        ground.alice("link"),
        ground.fleet.path("etc"),
        ground.fleet.path("new"),
    );
    for dir in [&etc, &new] {
        std::fs::create_dir(dir).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let names: Vec<String> = (0..MANY).map(|at| format!("config{at:02}")).collect();
    for name in &names {
        ground.config(&format!("conf/{name}"));
        write(&etc.join(name), "root's words\n");
        write(
            &new.join(name),
            "message = \"two\"\nlisten = \"127.0.0.1:0\"\n",
        );
    }
    symlink(&etc, &link).unwrap();
    ground.serve_at_home(&conf.join(&names[0]));
    let notes = Notes::new();
    let text = format!(
        "#!/bin/bash\n{{ echo began; cat '{}'/*; }} >{} 2>&1\n",
        etc.display(),
        notes.sink()
    );
    let validator = ground.program("validator", &text);
    let others: Vec<String> = names[1..]
        .iter()
        .map(|name| format!("[\"{}\"]", conf.join(name).display()))
        .collect();
    ground.group(&format!("config = [[\"{{arg:--config}}\"], {}]\nspeaks = \"none\"\nconfirm = []\nvalidate = [\"{validator}\"]", others.join(", ")));
    let run = || ground.broadcast(&["--dry-run", "--config", new.to_str().unwrap()]);
    run().expect(0);
    let noted = || notes.text();
    assert!(noted().contains("began"), "the validator runs");
    let mark = format!(".{}.hello-", names[MANY - 1]);
    let attacker = ground.attack(
        "lead",
        &[&conf, Path::new(&mark), &conf, &link, Path::new("0.06")],
    );
    let mut met = 0;
    race(tries(60), |_| {
        let (count, began) = (attacker.count(), noted().matches("began").count());
        let result = run();
        // Its directory was redirected when its candidates were staged and its validator was to
        // run.
        met += usize::from(
            attacker.count() > count
                && (result.code != 0 || noted().matches("began").count() > began),
        );
        assert!(
            !noted().contains("message"),
            "a file of root's is covered by a candidate"
        );
        met > 0
    });
    println!(
        "led elsewhere within {met} runs, {} validators",
        noted().matches("began").count()
    );
    assert!(met > 0, "the race was not run");
}

#[test]
fn a_setuid_program_gives_no_right_where_a_candidate_is_mounted() {
    let Some((ground, _server)) = Ground::serving() else {
        return;
    };
    let (setuid, notes) = (ground.fleet.path("env"), Notes::new());
    assert!(
        Command::new("cp")
            .arg("/usr/bin/env")
            .arg(&setuid)
            .status()
            .unwrap()
            .success()
    );
    std::fs::set_permissions(&setuid, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let elsewhere = as_alice(&setuid).args(["id", "-u"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&elsewhere.stdout),
        "0\n",
        "elsewhere it gives root's"
    );
    let text = format!(
        "#!/bin/bash\n{{ cat '{}'; '{}' id -u; }} >{}\n",
        ground.alice("web.toml").display(),
        setuid.display(),
        notes.sink()
    );
    let validator = ground.program("validator", &text);
    ground.group(&format!("validate = [\"{validator}\"]"));
    ground
        .broadcast(&["--dry-run", "--set", "message=two"])
        .expect(0);
    let notes = notes.text();
    assert!(
        notes.contains("two"),
        "it sees the candidate at the live path: {notes}"
    );
    assert_eq!(
        notes.lines().last(),
        Some(uid().to_string().as_str()),
        "{notes}"
    );
}
