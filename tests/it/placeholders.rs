//! Values that a process shows by its title and its environment.

use std::process::{Command, Stdio};

use crate::{
    daemons::need,
    support::{CommandResult, Fleet, until},
    users::Other,
};

/// A process that never reloads, with a copy of its config in `runs`. Its command copies it again.
struct Titled {
    fleet: Fleet,
    child: Other,
}

impl Titled {
    /// Starts perl with this title, if there is one. `CONFIG` stands for the path of its config.
    fn start(title: Option<&str>) -> Option<Self> {
        if !need("perl") {
            return None;
        }
        let fleet = Fleet::start(0);
        for name in ["d.toml", "runs"] {
            fleet.write(name, "message = \"one\"\n");
        }
        let config = fleet.path("d.toml").display().to_string();
        let title = title.map(|title| title.replace("CONFIG", &config));
        let mut command = Command::new("perl");
        // Without a title it keeps its command line, and its environment in one piece.
        match &title {
            Some(_) => command.args(["-e", "$0 = shift; sleep 1000"]).args(&title),
            None => command.args(["-e", "sleep 1000", "run", &config]),
        };
        let child = command
            .env("APP_DIR", fleet.dir.path())
            .env("APP_FLAG", "-x")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let line = format!("/proc/{}/cmdline", child.id());
        until("it has its command line", || {
            let now = std::fs::read(&line).unwrap_or_default();
            let now = String::from_utf8_lossy(&now).into_owned();
            match &title {
                Some(title) => now.starts_with(title.as_str()),
                None => now.starts_with("perl\0-e"),
            }
        });
        let child = Other(child, String::new());
        Some(Self { fleet, child })
    }

    fn set(&self, config: &str, reload_by: &str) -> CommandResult {
        self.fleet.write(
            "fleet.toml",
            &format!(
                "version = 1\n[[group]]\nname = \"titled\"\nmatch = {{ exe = \"perl*\" }}\ninstances = [{{ pid = {} }}]\nconfig = {config}\nreload_by = {reload_by}\ntimeout = \"10m\"\n\
                 [[group.confirm]]\nexec = [\"cat\", \"{{config.dir}}/runs\"]\ncontains = \"{{candidate.message}}\"\n",
                self.child.0.id()
            ),
        );
        self.fleet.broadcast(&["--set", "message=two"])
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.fleet.path(name)).unwrap()
    }
}

const TITLE: &str = "app: master process (CONFIG)";

/// Places of a config by a title, and the one that must not be taken instead.
fn places(fleet: &Fleet, pattern: &str) -> String {
    let other = fleet.write("other.toml", "message = \"other\"\n");
    format!("[\"{{title:{pattern}}}\", \"{}\"]", other.display())
}

#[test]
fn a_title_names_the_config() {
    let Some(titled) = Titled::start(Some(TITLE)) else {
        return;
    };
    let config = places(&titled.fleet, "master process (*)");
    let by = "[\"cp\", \"{title:master process (*)}\", \"{config.dir}/runs\"]";
    titled.set(&config, by).expect(0);
    assert_eq!(titled.text("runs"), "message = \"two\"\n");
    assert_eq!(titled.text("other.toml"), "message = \"other\"\n");
}

#[test]
fn a_title_without_the_text_names_no_other_config() {
    let Some(titled) = Titled::start(Some(TITLE)) else {
        return;
    };
    let config = places(&titled.fleet, "worker (*)");
    let result = titled.set(&config, "[\"true\", \"{pid}\"]").expect(5);
    let why = "in which `worker (*)` is not";
    assert!(result.stderr.contains(why), "{}", result.stderr);
    assert_eq!(titled.text("other.toml"), "message = \"other\"\n");
}

#[test]
fn a_title_with_several_such_texts_names_none() {
    let Some(titled) = Titled::start(Some("app: (CONFIG) (CONFIG)")) else {
        return;
    };
    let config = places(&titled.fleet, "(*)");
    titled.set(&config, "[\"true\", \"{pid}\"]").expect(5);
}

#[test]
fn a_title_that_hides_an_argument_names_no_default() {
    let Some(titled) = Titled::start(Some(TITLE)) else {
        return;
    };
    let other = titled.fleet.write("other.toml", "message = \"other\"\n");
    let config = format!("[\"{{arg:-y}}\", \"{}\"]", other.display());
    titled.set(&config, "[\"true\", \"{pid}\"]").expect(5);
    assert_eq!(titled.text("other.toml"), "message = \"other\"\n");
}

#[test]
fn a_command_that_needs_arguments_behind_a_title_is_refused() {
    let Some(titled) = Titled::start(Some(TITLE)) else {
        return;
    };
    let config = places(&titled.fleet, "master process (*)");
    let result = titled
        .set(&config, "[\"true\", \"{arg:process}\"]")
        .expect(5);
    let why = "which hides the arguments";
    assert!(result.stderr.contains(why), "{}", result.stderr);
    assert_eq!(titled.text("d.toml"), "message = \"one\"\n");
}

#[test]
fn a_command_gets_a_variable_of_the_environment() {
    let Some(titled) = Titled::start(None) else {
        return;
    };
    let by = "[\"cp\", \"{config}\", \"{env:APP_DIR}/runs\"]";
    let config = format!("\"{}\"", titled.fleet.path("d.toml").display());
    titled.set(&config, by).expect(0);
    assert_eq!(titled.text("runs"), "message = \"two\"\n");
}

#[test]
fn a_command_without_its_variable_is_refused_before_anything_is_touched() {
    let Some(titled) = Titled::start(None) else {
        return;
    };
    let config = format!("\"{}\"", titled.fleet.path("d.toml").display());
    for name in ["APP_NONE", "APP_FLAG"] {
        let by = format!("[\"cp\", \"{{config}}\", \"{{env:{name}}}\"]");
        let result = titled.set(&config, &by).expect(5);
        assert!(result.stderr.contains(name), "{}", result.stderr);
        assert_eq!(titled.text("d.toml"), "message = \"one\"\n");
    }
}
