//! Readings beyond HTTP and commands: greetings, parts by a regular expression, numbers that fall,
//! and children by name.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{CommandResult, Fleet, RUN_LIMIT};

/// `greeter.py`. It ends its child when the test ends it.
struct Greeter {
    fleet: Fleet,
    child: Child,
}

impl Drop for Greeter {
    fn drop(&mut self) {
        let _ = kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            Signal::SIGTERM,
        );
        let deadline = std::time::Instant::now() + RUN_LIMIT;
        while self.child.try_wait().is_ok_and(|end| end.is_none()) {
            if std::time::Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::yield_now();
        }
    }
}

impl Greeter {
    fn start() -> Self {
        let fleet = Fleet::start(0);
        fleet.write("greeter.py", include_str!("greeter.py"));
        fleet.write("greeter.toml", "message = \"one\"\n");
        let mut child = Command::new("python3")
            .arg(fleet.path("greeter.py"))
            .arg(fleet.path("greeter.toml"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let greeter = Self { fleet, child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        greeter
    }

    fn set(&self, facts: &str, message: &str, args: &[&str]) -> CommandResult {
        let (script, config) = (
            self.fleet.path("greeter.py"),
            self.fleet.path("greeter.toml"),
        );
        let facts = facts.replace("FILE", &format!("{}.left", config.display()));
        let (script, config) = (script.display(), config.display());
        let text = format!(
            "version = 1\n[[group]]\nname = \"g\"\nmatch = {{ args = [\"{script}\"] }}\n\
             config = \"{config}\"\nreloads = true\ntimeout = \"15s\"\n{facts}\n"
        );
        self.fleet.write("fleet.toml", &text);
        let set = format!("message={message}");
        let args: Vec<&str> = ["--set", &set]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.fleet.broadcast(&args)
    }

    /// Checks that these assertions prove a change by `proof`.
    fn proves(&self, facts: &str, message: &str, proof: &str) {
        let result = self.set(facts, message, &[]).expect(0);
        let one = &result.json["instances"][0];
        assert_eq!(
            (&one["outcome"], &one["proof"]),
            (&"confirmed".into(), &proof.into()),
            "{:#}",
            result.json
        );
    }

    /// Checks that these assertions prove nothing of a change, for this reason.
    fn lacks(&self, facts: &str, message: &str, why: &str) {
        let result = self.set(facts, message, &["--timeout", "2s"]);
        assert!(matches!(result.code, 6 | 7), "{}", result.stderr);
        let text = result.json["instances"][0]["failure"]["text"].as_str();
        assert!(text.unwrap_or_default().contains(why), "{text:?}");
    }
}

const GREETING: &str =
    "[[group.confirm]]\ntcp = \"{listen}\"\nequals = \"220 {candidate.message}\"";

#[test]
fn a_command_that_fails_has_no_moment_to_compare_with() {
    let greeter = Greeter::start();
    let facts = "[[group.confirm]]\nexec = [\"sh\", \"-c\", \"exit 3\"]\nafter_signal = true";
    let result = greeter.set(facts, "two", &[]).expect(5);
    let says = "ended with exit status 3, so it has no moment";
    assert!(result.stderr.contains(says), "{}", result.stderr);
}

#[test]
fn a_greeting_is_the_first_line_of_a_connection() {
    let greeter = Greeter::start();
    greeter.proves(GREETING, "two", "content");
    let wrong = "[[group.confirm]]\ntcp = \"{listen}\"\ncontains = \"221\"";
    greeter.lacks(wrong, "three", "reads `220 three`");
}

#[test]
fn the_group_of_a_regular_expression_is_read() {
    let greeter = Greeter::start();
    let part = "[[group.confirm]]\ntcp = \"{listen}\"\nregex = '^220 (\\S+)$'\n\
                equals = \"{candidate.message}\"";
    greeter.proves(part, "two", "content");
    let stdout = "[[group.confirm]]\nexec = [\"cat\", \"FILE\"]\nregex = 'left: (\\d+)'\n\
                  changed = true";
    greeter.proves(stdout, "three", "content");
}

#[test]
fn a_number_that_falls_proves_a_reload() {
    let greeter = Greeter::start();
    let falls = "[[group.confirm]]\nexec = [\"cat\", \"FILE\"]\nregex = 'left: (\\d+)'\n\
                 decreased = true";
    greeter.proves(falls, "two", "reloaded");
    let rises = falls.replace("decreased", "increased");
    greeter.lacks(&rises, "three", "more than before the signal");
}

#[test]
fn children_of_a_name_prove_a_reload_once_all_were_replaced() {
    let greeter = Greeter::start();
    let replaced = "[[group.confirm]]\nchildren = \"sleep\"\nreplaced = true";
    greeter.proves(replaced, "two", "workers");
    greeter.lacks(replaced, "stay", "its children `sleep` are not replaced");
}

#[test]
fn children_that_are_not_there_are_refused() {
    let greeter = Greeter::start();
    let none = "[[group.confirm]]\nchildren = \"qmgr\"\nreplaced = true";
    let result = greeter.set(none, "two", &[]).expect(5);
    assert!(
        result.stderr.contains("has no child `qmgr`"),
        "{}",
        result.stderr
    );
}
