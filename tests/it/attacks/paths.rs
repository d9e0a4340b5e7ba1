//! A deciding path is exchanged for a path of another user at every moment of a run.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Command,
};

use super::ground::{Ground, Untouched, race, tries, uid};
use crate::support::{CommandResult, write};

/// Whether a run reported that it does not follow the path.
fn is_refused(result: &CommandResult) -> bool {
    result.stderr.contains("can change")
        || result.stderr.contains("can write")
        || result.stderr.contains("ymbolic link")
}

#[test]
fn fleet_file_and_state_are_never_reached_by_a_link_of_another_user() {
    let Some((ground, _)) = Ground::serving() else {
        return;
    };
    let (here, link, good) = (
        ground.folder("here"),
        ground.alice("link"),
        ground.fleet.path("good"),
    );
    let (own, file_link) = (ground.alice("fleet.toml"), ground.alice("file-link"));
    std::fs::create_dir(&good).unwrap();
    let marked = "version = 1\n[[group]]\nname = \"followed\"\nkind = \"hello\"\nmatch = { exe = \"/none\" }\n";
    write(&good.join("fleet.toml"), marked);
    ground.file("here/fleet.toml", marked, 0o644);
    ground.file("fleet.toml", marked, 0o644);
    symlink(&good, &link).unwrap();
    symlink(good.join("fleet.toml"), &file_link).unwrap();
    ground.group("");
    let before = Untouched::of(&good);
    let exchanges = ground.attack("exchange", &[&here, &link]);
    let files = ground.attack("exchange", &[&own, &file_link]);
    let (mut moved, mut refused) = (0, 0);
    race(tries(40), |at| {
        let count = exchanges.count();
        let mut hello = Command::new(ground.fleet.exe());
        match at % 4 {
            // The fleet of the working directory.
            0 => hello
                .args(["status", "-o", "json"])
                .current_dir(&ground.alice),
            1 => hello
                .args(["status", "-o", "json", "--fleet"])
                .arg(here.join("fleet.toml")),
            2 => hello
                .args(["doctor", "-o", "json"])
                .env("HELLO_FLEET", here.join("fleet.toml")),
            _ => hello
                .args(["broadcast", "-o", "json", "--set", "message=x", "--fleet"])
                .arg(ground.fleet.path("fleet.toml"))
                .arg("--state")
                .arg(here.join("state")),
        };
        let result = CommandResult::of(&mut hello);
        moved += usize::from(exchanges.count() > count && files.count() > 0);
        refused += usize::from(is_refused(&result));
        assert!(
            !result.stderr.contains("followed"),
            "{at}: {}",
            result.stderr
        );
        assert!(
            !result.json.to_string().contains("followed"),
            "{at}: {}",
            result.stderr
        );
        // A run that took the state would end otherwise.
        assert!(
            [1, 2].contains(&result.code),
            "{at}: {} {}",
            result.code,
            result.stderr
        );
        moved > 0 && refused > 0
    });
    println!("exchanged within {moved} runs, refused by name {refused}");
    assert!(moved > 0, "the race was not run: {moved} {refused}");
    assert!(refused > 0, "the race was not run: {moved} {refused}");
    assert_eq!(Untouched::of(&good), before);
    drop(exchanges);
    for dir in [&here, &link]
        .into_iter()
        .filter(|path| path.symlink_metadata().unwrap().is_dir())
    {
        assert!(
            std::fs::read_dir(dir)
                .unwrap()
                .all(|entry| entry.unwrap().metadata().unwrap().uid() == uid()),
            "root has made something there"
        );
    }
}

#[test]
fn the_operator_s_config_is_never_read_by_a_link_of_another_user() {
    let Some((ground, _)) = Ground::serving() else {
        return;
    };
    ground.group("");
    let secret = write(
        &ground.roots.join("new.toml"),
        "message = \"root's words\"\nlisten = \"127.0.0.1:0\"\n",
    );
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (named, link) = (
        ground.file(
            "new.toml",
            "message = \"two\"\nlisten = \"127.0.0.1:0\"\n",
            0o644,
        ),
        ground.alice("link"),
    );
    symlink(&secret, &link).unwrap();
    let exchanges = ground.attack("exchange", &[&named, &link]);
    let (mut refused, mut taken) = (0, 0);
    race(tries(40), |at| {
        let named = named.display().to_string();
        let result = match at % 2 {
            0 => ground.broadcast(&["--dry-run", "--config", &named]),
            _ => ground.broadcast(&["--dry-run", "--set", &format!("message=@{named}")]),
        };
        refused += usize::from(is_refused(&result));
        taken += usize::from(result.code == 0);
        assert!(
            !result.stderr.contains("root's words"),
            "{at}: {}",
            result.stderr
        );
        assert!(
            !result.json.to_string().contains("root's words"),
            "{at}: {}",
            result.stderr
        );
        refused > 0 && taken > 0
    });
    println!(
        "refused {refused}, taken {taken}, {} exchanges",
        exchanges.count()
    );
    assert!(refused > 0, "the race was not run: {refused} {taken}");
    assert!(taken > 0, "the race was not run: {refused} {taken}");
}
