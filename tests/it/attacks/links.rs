//! A directory or file of another user is exchanged for one of root at every moment of a run.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::{
    ground::{Ground, Untouched, race, tries},
    notes::Notes,
};
use crate::support::write;

/// Creates a directory of root with a file of the config's name, and a link to it.
fn etc(ground: &Ground) -> std::path::PathBuf {
    let etc = ground.fleet.path("etc");
    std::fs::create_dir(&etc).unwrap();
    write(&etc.join("passwd"), "root's words\n");
    std::fs::set_permissions(etc.join("passwd"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&etc, ground.alice("link")).unwrap();
    etc
}

/// Runs the next of these commands and returns its output. `last` is the run that a revert rolls
/// back.
fn tried(ground: &Ground, at: usize, verbs: &[&str], last: &mut String) -> String {
    let verb = verbs[at % verbs.len()];
    let result = if verb == "revert" {
        ground.fleet.continue_run("revert", &[last])
    } else {
        ground.run_json(verb, &format!("x{at}"))
    };
    if let Some(run) = result.json["run"].as_str().filter(|_| verb == "broadcast") {
        run.clone_into(last);
    }
    format!("{}\n{}", result.stderr, result.json)
}

#[test]
fn a_config_directory_exchanged_for_one_of_root_is_not_followed() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let conf = ground.folder("conf");
    let config = ground.config("conf/passwd");
    let (etc, link) = (etc(&ground), ground.alice("link"));
    ground.serve_at_home(&config);
    let notes = Notes::new();
    // It names no path: only it sees the candidate at the live path. It records the mounts and the
    // content.
    let text = format!(
        "#!/bin/bash\n{{ grep -c ' {}/' /proc/self/mountinfo; cat '{}'; }} >{} 2>&1\n",
        etc.display(),
        config.display(),
        notes.sink()
    );
    let validator = ground.program("validator", &text);
    ground.group(&format!("validate = [\"{validator}\"]"));
    let before = Untouched::of(&etc);
    let verbs = [
        "dry-run",
        "broadcast",
        "status",
        "revert",
        "dry-run",
        "broadcast",
        "doctor",
    ];
    let (mut met, mut passed, mut moved, mut last) = (0, 0, 0, String::new());
    for (attack, sample) in [("cued", 20), ("exchange", 10)] {
        let (mark, args): (&Path, Vec<&Path>) = (Path::new(".hello-"), vec![&conf, &link]);
        let args = if attack == "cued" {
            [vec![conf.as_path(), mark], args].concat()
        } else {
            args
        };
        let attacker = ground.attack(attack, &args);
        race(tries(sample), |at| {
            let count = attacker.count();
            let result = tried(&ground, at, &verbs, &mut last);
            moved += usize::from(attacker.count() > count);
            met += usize::from(
                [
                    "leads elsewhere",
                    "ymbolic link",
                    "not what was surveyed",
                    "by a link",
                    "was changed by another",
                ]
                .iter()
                .any(|word| result.contains(word)),
            );
            passed += usize::from(
                result.contains("\"converged\"") || result.contains("\"dry_run\":true"),
            );
            assert!(!result.contains("root's words"), "{result}");
            assert_eq!(Untouched::of(&etc), before, "{result}");
            moved > 0 && met + passed > 0
        });
    }
    let notes = notes.text();
    println!(
        "exchanged within {moved} runs, met by {met}, passed by {passed}; {} validators",
        notes.matches("listen").count()
    );
    assert!(moved > 0, "the race was not run: moved {moved}, met {met}");
    assert!(
        met + passed > 0,
        "the race was not run: moved {moved}, met {met}"
    );
    assert!(
        !notes.contains("root's words"),
        "a validator has read root's file: {notes}"
    );
    assert!(
        notes
            .lines()
            .filter(|line| line.parse::<u32>().is_ok())
            .all(|line| line == "0"),
        "something was mounted in root's directory: {notes}"
    );
}

#[test]
fn a_file_that_only_root_may_read_is_never_staged_for_another_owner() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let conf = ground.folder("conf");
    let config = ground.config("conf/web.toml");
    ground.serve_at_home(&config);
    ground.group("speaks = \"none\"\nconfirm = []\nvalidate = []");
    // It lies in a directory of another user, who may move it and may not read it.
    let secret = write(
        &conf.join("secret"),
        "message = \"one\"\nlisten = \"127.0.0.1:0\"\n# root's words\n",
    );
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let words = Path::new("root's words");
    let loot = ground.attack("loot", &[&conf, Path::new(".hello-"), words]);
    let (mut moved, mut last) = (0, String::new());
    // Without a pause it may be another file at each access of a run.
    for most in ["0", "0.004"] {
        let exchanges = ground.attack("exchange", &[&config, &secret, Path::new(most)]);
        race(tries(30), |at| {
            let count = exchanges.count();
            let result = tried(
                &ground,
                at,
                &["dry-run", "dry-run", "dry-run", "broadcast", "revert"],
                &mut last,
            );
            moved += usize::from(exchanges.count() > count);
            assert_eq!(loot.got(), 0, "try {at}: {result}");
            moved > 0 && loot.count() > 0
        });
    }
    println!(
        "exchanged within {moved} runs; {} looks at what was staged",
        loot.count()
    );
    assert!(moved > 0, "the race was not run");
    assert!(loot.count() > 0, "the race was not run");
    // Root's content is only in files that root owns.
    for entry in std::fs::read_dir(&conf)
        .unwrap()
        .map(|entry| entry.unwrap())
    {
        let is_roots = std::os::unix::fs::MetadataExt::uid(&entry.metadata().unwrap()) == 0;
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        assert!(
            is_roots || !text.contains("root's words"),
            "{}",
            entry.path().display()
        );
    }
}

#[test]
fn a_validator_never_runs_in_an_exchanged_directory_of_root() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let (work, config) = (ground.folder("work"), ground.config("web.toml"));
    ground.file("work/secret", "alice's words\n", 0o644);
    let inner = ground.roots.join("inner");
    std::fs::create_dir(&inner).unwrap();
    write(&inner.join("secret"), "root's words\n");
    symlink(&inner, ground.alice("link")).unwrap();
    for _ in 0..10 {
        ground.serve(&config, &work);
    }
    let notes = Notes::new();
    let validator = ground.program(
        "validator",
        &format!(
            "#!/bin/bash\n{{ readlink /proc/self/cwd; cat secret; }} >{}\n",
            notes.sink()
        ),
    );
    // Each instance is validated separately.
    for argv in [
        format!("\"{validator}\", \"{{pid}}\", \"{{candidate}}\""),
        format!("\"{validator}\", \"{{pid}}\""),
    ] {
        ground.group(&format!("validate = [{argv}]"));
        notes.clear();
        let mut exchanged = 0;
        for most in ["0", "0.02"] {
            let exchanges =
                ground.attack("exchange", &[&work, &ground.alice("link"), Path::new(most)]);
            race(tries(20).div_ceil(10), |at| {
                ground.run_json(["dry-run", "status"][at % 2], &format!("x{at}"));
                let notes = notes.text();
                notes.contains("/link\n") && notes.contains("alice's words")
            });
            exchanged += exchanges.count();
        }
        let notes = notes.text();
        let elsewhere = notes.matches("/link\n").count();
        println!(
            "{} validators, {elsewhere} while the path was the link; {} exchanges",
            notes.matches("words").count(),
            exchanged
        );
        assert!(elsewhere > 0, "the race was not run: {notes}");
        assert!(
            notes.contains("alice's words"),
            "the race was not run: {notes}"
        );
        assert!(!notes.contains("root's words"), "{notes}");
    }
}

#[test]
fn a_command_runs_in_the_held_working_directory_or_not_at_all() {
    let Some(mut ground) = Ground::new() else {
        return;
    };
    let (work, other, config) = (
        ground.folder("work"),
        ground.folder("other"),
        ground.config("web.toml"),
    );
    for (name, text) in [("work", "held\n"), ("other", "another\n")] {
        ground.folder(&format!("{name}/sub"));
        ground.file(&format!("{name}/sub/which"), text, 0o644);
    }
    for _ in 0..10 {
        ground.serve(&config, &work.join("sub"));
    }
    let notes = Notes::new();
    let validator = ground.program(
        "validator",
        &format!("#!/bin/bash\ncat which >{}\n", notes.sink()),
    );
    for argv in [
        format!("\"{validator}\", \"{{pid}}\", \"{{candidate}}\""),
        format!("\"{validator}\", \"{{pid}}\""),
    ] {
        ground.group(&format!("validate = [{argv}]"));
        let run = |at: usize| ground.run_json("dry-run", &format!("x{at}"));
        let held = || notes.text();
        // The whole path was replaced before the run.
        std::fs::rename(&work, ground.alice("moved")).unwrap();
        std::fs::rename(&other, &work).unwrap();
        notes.clear();
        run(0).expect(0);
        assert!(held().contains("held"), "{}", held());
        assert!(!held().contains("another"), "{}", held());
        std::fs::rename(&work, &other).unwrap();
        std::fs::rename(ground.alice("moved"), &work).unwrap();
        // And it is replaced continuously.
        for most in ["0", "0.02"] {
            let exchanges = ground.attack("exchange", &[&work, &other, Path::new(most)]);
            let before = exchanges.count();
            race(tries(20).div_ceil(10), |at| {
                run(at + 1);
                assert!(!held().contains("another"), "{}", held());
                exchanges.count() > before && held().contains("held")
            });
            assert!(exchanges.count() > before);
            assert!(held().contains("held"));
        }
        if held_is_elsewhere(&work) {
            rename_back(&work, &other);
        }
    }
}

fn held_is_elsewhere(work: &Path) -> bool {
    std::fs::read_to_string(work.join("sub/which")).unwrap() != "held\n"
}

fn rename_back(work: &Path, other: &Path) {
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        work,
        rustix::fs::CWD,
        other,
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
}
