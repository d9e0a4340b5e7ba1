//! A command about an instance reaches neither the terminal nor the processes of root's session.

use serde_json::Value;

use super::ground::{Ground, Session, tries, uid};

/// Runs each sort of command from a session of root. Returns the notes of each, and the output of
/// the terminal.
fn reached(
    ground: &Ground,
    session: &Session,
    intruder: &str,
    round: usize,
) -> (Vec<Value>, String) {
    let mut shown = String::new();
    let exec = format!("validate = []\n[[group.confirm]]\nexec = {intruder}\nequals = \"x\"");
    let keys = format!("validate = []\nrestart_keys = {intruder}");
    let validator = format!("validate = {intruder}");
    for (group, verbs) in [
        (
            &validator,
            &["dry-run", "broadcast", "status", "doctor"][..],
        ),
        (&keys, &["dry-run", "broadcast"]),
        (&exec, &["broadcast"]),
    ] {
        ground.group(group);
        for verb in verbs {
            let before = session.notes().len();
            shown += &session.run(&ground.verb(verb, &format!("x{round}-{before}")));
            assert!(
                session.notes().len() > before,
                "{verb} of {group} has run nothing: {shown}"
            );
        }
    }
    (session.notes(), shown)
}

#[test]
fn no_command_of_another_user_types_on_root_s_terminal_or_reaches_its_own_supervisor() {
    let Some((ground, _)) = Ground::serving() else {
        return;
    };
    let session = Session::new(&ground);
    let intruder = session.intruder();
    let mut seen = 0;
    for round in 0..tries(1).div_ceil(7) {
        let (notes, shown) = reached(&ground, &session, &intruder, round);
        for note in &notes[seen..] {
            assert_eq!(note["uid"], uid(), "{note:#}");
            // No terminal controls it, and none is among its descriptors.
            assert_eq!(
                (&note["in_session"], &note["tty"], &note["terminals"]),
                (&false.into(), &"ENXIO".into(), &0.into()),
                "{note:#}"
            );
            assert_eq!(note["terminal"], "EACCES", "{note:#}");
            assert!(
                note["descriptors"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|answer| answer != "yes"),
                "{note:#}"
            );
            assert_ne!(note["controls"], "yes", "{note:#}");
            // The supervisor belongs to root: it can be neither signalled nor inspected.
            assert_eq!(
                (&note["signals"], &note["traces"]),
                (&"EPERM".into(), &"EPERM".into()),
                "{note:#}"
            );
            assert_eq!(
                (&note["environment"], &note["files"]),
                (&"EACCES".into(), &"EACCES".into()),
                "{note:#}"
            );
        }
        seen = notes.len();
        assert!(shown.contains("typed:."), "{shown}");
        assert!(!shown.contains("typed-by-alice"), "{shown}");
    }
    assert!(seen >= 7, "each sort of command was run: {seen}");
}
