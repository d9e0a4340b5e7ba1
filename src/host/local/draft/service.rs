//! The units of systemd and the init scripts that start a program, as their files say. systemd need
//! not run.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    fact::{About, Fact},
    program::Program,
};
use crate::{fleet::Signal, kernel::Proc};

/// The directories of units, the most important first (systemd.unit(5)).
const UNITS: [&str; 7] = [
    "/etc/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// The directory of init scripts.
const SCRIPTS: &str = "/etc/init.d";

/// The most files of a directory that are read. A machine with many packages has some hundreds.
const MAX_FILES: usize = 2000;

/// Largest file that is read, in bytes; a longer one is cut.
const MAX_BYTES: u64 = 64 << 10;

/// A unit, or an init script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// Its file name.
    pub(super) name: String,
    /// True if the process runs in it.
    pub(super) is_its: bool,
    /// Commands that start it.
    pub(super) starts: Vec<Vec<String>>,
    /// Commands that run before its start.
    pub(super) before: Vec<Vec<String>>,
    /// Commands that reload it.
    pub(super) reloads: Vec<Vec<String>>,
    /// The signal that an init script sends for a reload.
    pub(super) signal: Option<Signal>,
    /// True if it is an init script with an action `reload`.
    pub(super) has_reload_action: bool,
}

/// The services that start a program.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// The unit that the process runs in, by its control group.
    pub(super) unit: Option<String>,
    /// The unit of the process, then units that name its program, then init scripts that do.
    pub(super) all: Vec<Service>,
}

impl Services {
    /// Finds the services of a program. In other mounts there are others.
    pub(super) fn of(program: &Program<'_>) -> Self {
        let unit = Self::unit_of(program.found.pid);
        if !program.shares_mounts {
            return Self {
                unit,
                all: Vec::new(),
            };
        }
        let mut all: Vec<Service> = unit.iter().filter_map(|unit| service_of(unit)).collect();
        if all.is_empty() {
            all = units_naming(program);
        }
        all.extend(scripts_naming(program));
        Self { unit, all }
    }

    /// Returns the unit that a process runs in, by its control group.
    pub(super) fn unit_of(pid: i32) -> Option<String> {
        let text = Proc::open(pid).and_then(|process| process.read("cgroup"));
        unit_in(&String::from_utf8_lossy(&text.ok()?))
    }

    /// Returns a fact about each of them.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let mut facts: Vec<Fact> = self
            .unit
            .iter()
            .map(|unit| Fact::seen(About::Service, format!("runs in the unit {unit}")))
            .collect();
        let others = self.all.iter().filter(|service| !service.is_its);
        facts.extend(others.map(|service| {
            let text = format!("{} names its program", service.name);
            Fact::guessed(About::Service, text)
        }));
        facts
    }
}

/// The service that a process of this `/proc/PID/cgroup` runs in; none outside a service.
fn unit_in(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut parts = path.rsplit('/');
    let unit = parts.find(|part| part.ends_with(".service"))?;
    // The manager of a user is a service as well, and its services are below it.
    (!unit.starts_with("user@")).then(|| unit.to_owned())
}

/// Reads a unit and its drop-ins. An instance of a template has the file of the template.
fn service_of(unit: &str) -> Option<Service> {
    let template = unit
        .split_once('@')
        .map(|(name, _)| format!("{name}@.service"));
    let names: Vec<&str> = [Some(unit), template.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let mut text = names
        .iter()
        .flat_map(|name| UNITS.map(|dir| Path::new(dir).join(name)))
        .find_map(|path| read(&path))?;
    for name in names {
        for dir in UNITS {
            for path in entries(&Path::new(dir).join(format!("{name}.d"))) {
                if path.extension() == Some(OsStr::new("conf")) {
                    text.push('\n');
                    text.push_str(&read(&path).unwrap_or_default());
                }
            }
        }
    }
    Some(Service {
        is_its: true,
        ..parse_unit(unit, &text)
    })
}

/// The units whose start names the program.
fn units_naming(program: &Program<'_>) -> Vec<Service> {
    let mut found: Vec<Service> = Vec::new();
    for path in UNITS.iter().flat_map(|dir| entries(Path::new(dir))) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_known = found.iter().any(|service| *service.name == *name);
        if path.extension() != Some(OsStr::new("service")) || is_known {
            continue;
        }
        let Some(text) = read(&path) else { continue };
        let service = parse_unit(&name, &text);
        let starts_it = |argv: &Vec<String>| argv.first().is_some_and(|path| program.is_at(path));
        if service.starts.iter().any(starts_it) {
            found.push(service);
        }
    }
    found
}

/// The init scripts that name the program.
fn scripts_naming(program: &Program<'_>) -> Vec<Service> {
    let Some(file) = program.file().to_str() else {
        return Vec::new();
    };
    let names_it = |text: &str| {
        let mut ends = text.match_indices(file).map(|(at, _)| at + file.len());
        ends.any(|end| {
            let next = text[end..].chars().next();
            next.is_none_or(|c| !c.is_alphanumeric() && !"-_./".contains(c))
        })
    };
    let scripts = entries(Path::new(SCRIPTS)).into_iter().filter_map(|path| {
        let text = read(&path).filter(|text| names_it(text))?;
        let (has_reload_action, signal) = reload_action(&text);
        Some(Service {
            name: path.display().to_string(),
            has_reload_action,
            signal,
            ..Service::default()
        })
    });
    scripts.collect()
}

/// The files of a directory in the order of their names; none without such a directory.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .take(MAX_FILES)
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths
}

/// Reads a regular file; none if there is none, or this user may not read it.
fn read(path: &Path) -> Option<String> {
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Parses the commands of a unit (systemd.service(5)). An empty value removes those before it.
fn parse_unit(name: &str, text: &str) -> Service {
    let mut service = Service {
        name: name.to_owned(),
        ..Service::default()
    };
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        let Some((key, value)) = line.trim().split_once('=') else {
            continue;
        };
        let list = match key.trim_end() {
            "ExecStart" => &mut service.starts,
            "ExecStartPre" => &mut service.before,
            "ExecReload" => &mut service.reloads,
            _ => continue,
        };
        match words(value) {
            argv if argv.is_empty() => list.clear(),
            argv => list.push(argv),
        }
    }
    service
}

/// The words of a command of a unit, without the signs before its program.
fn words(text: &str) -> Vec<String> {
    let text = text
        .trim()
        .trim_start_matches(['-', '+', '!', '@', ':', '|']);
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut is_word = false;
    for c in text.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                is_word = true;
            }
            (None, c) if c.is_whitespace() => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            (_, c) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// Returns the signal that a command sends; none if it is no command that only sends one.
pub(super) fn signal_of(argv: &[String]) -> Option<Signal> {
    let program = argv.first()?.rsplit('/').next()?;
    if !["kill", "pkill", "killall"].contains(&program) {
        return None;
    }
    signal_in(argv.iter().skip(1).map(String::as_str))
}

/// Returns the signal that the options of `kill` name: `-HUP`, `-s HUP`, `--signal HUP`.
fn signal_in<'a>(words: impl Iterator<Item = &'a str>) -> Option<Signal> {
    let words: Vec<&str> = words.collect();
    let pairs = words.iter().zip(words.iter().skip(1).chain([&""]));
    let mut signals = pairs.filter_map(|(word, next)| match *word {
        "-s" | "--signal" | "-n" => signal_named(next),
        word => signal_named(word.strip_prefix("--signal=").or(word.strip_prefix('-'))?),
    });
    signals.next()
}

fn signal_named(name: &str) -> Option<Signal> {
    match name.trim_start_matches("SIG") {
        "HUP" | "1" => Some(Signal::Hup),
        "USR1" | "10" => Some(Signal::Usr1),
        "USR2" | "12" => Some(Signal::Usr2),
        _ => None,
    }
}

/// Tells whether an init script has an action `reload`, and which signal it sends, if that stands
/// there.
fn reload_action(text: &str) -> (bool, Option<Signal>) {
    let is_label = |line: &str| {
        line.trim()
            .strip_suffix(')')
            .is_some_and(|labels| labels.split('|').any(|label| label.trim() == "reload"))
    };
    let mut lines = text.lines();
    if !lines.by_ref().any(is_label) {
        return (false, None);
    }
    let body = lines.take_while(|line| !line.trim_start().starts_with(";;"));
    let signal = body.filter_map(|line| signal_in(line.split_ascii_whitespace()));
    (true, signal.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_last_service_of_a_control_group() {
        for (text, unit) in [
            ("0::/system.slice/x.service\n", Some("x.service")),
            ("0::/system.slice/x.service/child\n", Some("x.service")),
            (
                "1:name=x:/a\n0::/system.slice/system-a.slice/a@1.service\n",
                Some("a@1.service"),
            ),
            ("0::/user.slice/user@0.service/app.slice\n", None),
            ("0::/\n", None),
        ] {
            assert_eq!(unit_in(text).as_deref(), unit, "{text}");
        }
    }

    #[test]
    fn the_commands_of_a_unit_are_its_words() {
        let text = [
            "[Service]",
            "ExecStart=!/usr/sbin/x \\",
            "  -c \"/etc/a b\"",
            "ExecReload=/bin/false",
            "ExecReload=",
            "ExecReload=+/bin/kill -HUP $MAINPID",
        ]
        .join("\n");
        let unit = parse_unit("x.service", &text);
        assert_eq!(unit.starts, [["/usr/sbin/x", "-c", "/etc/a b"]]);
        assert_eq!(unit.reloads, [["/bin/kill", "-HUP", "$MAINPID"]]);
    }

    #[test]
    fn only_a_command_that_kills_sends_a_signal() {
        for (command, signal) in [
            ("/bin/kill -HUP $MAINPID", Some(Signal::Hup)),
            ("/bin/kill -s SIGUSR1 $MAINPID", Some(Signal::Usr1)),
            ("kill --signal=12 $MAINPID", Some(Signal::Usr2)),
            ("/bin/kill -TERM $MAINPID", None),
            ("/usr/sbin/nginx -s reload", None),
        ] {
            assert_eq!(signal_of(&words(command)), signal, "{command}");
        }
    }

    #[test]
    fn the_action_of_an_init_script_may_name_its_signal() {
        let script = |body: &str| {
            format!("case \"$1\" in\n  reload)\n  {body}\n  ;;\n stop)\n kill -USR1 1\n;;\nesac\n")
        };
        let by = |body: &str| reload_action(&script(body));
        assert_eq!(
            by("start-stop-daemon --stop --signal 1 --name x"),
            (true, Some(Signal::Hup))
        );
        assert_eq!(by("signal reload 0"), (true, None));
        assert_eq!(
            reload_action("force-reload)\n kill -HUP 1\n;;\n"),
            (false, None)
        );
        assert_eq!(
            reload_action("a|reload)\n kill -HUP 1\n;;\n"),
            (true, Some(Signal::Hup))
        );
    }
}
