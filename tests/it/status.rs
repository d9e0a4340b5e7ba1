//! `hello status`: reads only, and says what would go wrong next.

use crate::support::Fleet;

#[test]
fn a_bad_file_on_disk_is_waiting_to_fail() {
    let fleet = Fleet::start(2);
    fleet.status().expect(0);
    fleet.write("web.toml", "message = \"later\"\nlisten = \"127.0.0.1:0\"\n");
    let said = fleet.status().expect(7).json.to_string();
    assert!(said.contains("does not run the config on its disk") && !said.contains("waiting to fail"), "{said}");
    fleet.write("web.toml", "message = 1\n");
    let said = fleet.status().expect(7).json.to_string();
    assert!(said.contains("waiting to fail"), "{said}");
    assert_eq!(fleet.attempts(), [1; 2], "nobody was signalled");
    // Its own validator is asked, whatever that is.
    fleet.write("web.toml", "message = \"one\"\nlisten = \"127.0.0.1:0\"\n");
    let group = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{group}validate = [\"/bin/sh\", \"-c\", \"echo no, never; exit 1\"]\n"));
    let said = fleet.status().expect(7).json.to_string();
    assert!(said.contains("waiting to fail") && said.contains("no, never"), "{said}");
    assert_eq!(fleet.attempts(), [1; 2], "nobody was signalled");
}
