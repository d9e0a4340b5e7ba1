//! Commands about an instance cannot read the keys of root's session.

use super::ground::{Ground, Session, tries};

#[test]
fn no_command_of_another_user_reads_a_key_of_root_s_session() {
    let Some((ground, _)) = Ground::serving() else {
        return;
    };
    let session = Session::new(&ground);
    let intruder = session.intruder();
    // The session itself has the key.
    let own = session.run(&[
        "python3".into(),
        ground.program("intruder.py", include_str!("intruder.py")),
        session.facts_file(),
        session.notes.port().to_string(),
    ]);
    let notes = session.notes();
    let Some(first) = notes
        .first()
        .filter(|note| note["keys"][0] == "a key of root's")
    else {
        crate::support::skipped(&format!("this kernel keeps no keys: {own}"));
        return;
    };
    // The same program types there, so that the test of the terminal can fail.
    if first["tty"] == "yes" {
        assert!(own.contains("typed:touch typed-by-alice."), "{own}");
    }
    let (exec, keys) = (
        format!("validate = []\n[[group.confirm]]\nexec = {intruder}\nequals = \"x\""),
        format!("validate = []\nrestart_keys = {intruder}"),
    );
    for at in 0..tries(3).div_ceil(3) {
        for (group, verb) in [
            (format!("validate = {intruder}"), "dry-run"),
            (exec.clone(), "broadcast"),
            (keys.clone(), "dry-run"),
        ] {
            ground.group(&group);
            let before = session.notes().len();
            let shown = session.run(&ground.verb(verb, &format!("key{at}")));
            let notes = session.notes();
            assert!(notes.len() > before, "{group} has run nothing: {shown}");
            assert!(
                notes[before..]
                    .iter()
                    .all(|note| note["keys"] == serde_json::json!([])),
                "{notes:#?}"
            );
        }
    }
}
