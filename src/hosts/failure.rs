//! Why a host was not reached, and what repairs it.

use std::time::Duration;

use crate::{
    fleet::ConnectError,
    inventory::{HostEntry, HostName},
    protocol::FrameError,
    screen,
};

/// Why there is no connection to a host.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    pub(crate) fault: Fault,
    /// The command that connects; empty if there is none.
    pub(super) argv: Vec<String>,
    /// The lines that the command wrote on stderr.
    pub(crate) stderr: Vec<String>,
    /// The output before the greeting.
    pub(crate) noise: Vec<u8>,
}

/// What happened to a connection that has no greeting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    NoCommand(#[from] ConnectError),
    /// The server over which the hosts are reached.
    #[error("{0}")]
    Server(String),
    #[cfg(feature = "nats")]
    #[error("no agent of this host listens on the NATS server")]
    NoAgent,
    #[error("`{0}` cannot be started: {1}")]
    NotStarted(String, std::io::Error),
    #[error("the command to connect ended with exit code {0}")]
    Ended(i32),
    #[error("a signal ended the command to connect")]
    Signalled,
    #[error("the command to connect ended with 0 and sent no greeting")]
    Quiet,
    #[error("no greeting within {}s", .0.as_secs())]
    Silent(Duration),
    #[error("it sent no greeting of an agent: {0}")]
    Frame(#[from] FrameError),
    #[error("it calls itself `{0}`, so the address leads to another host")]
    OtherHost(HostName),
    #[error(
        "it speaks the dialects {min} to {max}, and this hello speaks {own}; its version is \
         {version}, and that of this hello is {}",
        env!("CARGO_PKG_VERSION")
    )]
    Skewed {
        min: u32,
        max: u32,
        own: u32,
        version: String,
    },
}

/// A line of `ssh`, sudo or a shell, and what it means.
struct Known {
    /// The text in the line, in lower case.
    text: &'static str,
    /// Returns the command or line that repairs it.
    repair: fn(&HostEntry, &ConnectFailure) -> String,
}

/// Lines of programs on the way, from OpenSSH 9, sudo 1.9 and POSIX shells. They decide the hint
/// alone, never what the host counts as.
const KNOWN: [Known; 12] = [
    Known {
        text: "remote host identification has changed",
        repair: changed_key,
    },
    Known {
        text: "host key verification failed",
        repair: unknown_key,
    },
    Known {
        text: "permission denied (",
        repair: |host, _| format!("install a key there: ssh-copy-id {}", quoted(host)),
    },
    Known {
        text: "a password is required",
        repair: sudo_rule,
    },
    Known {
        text: "a terminal is required",
        repair: sudo_rule,
    },
    Known {
        text: "is not in the sudoers file",
        repair: sudo_rule,
    },
    Known {
        text: "sudo: command not found",
        repair: |_, _| "install sudo there, or set `connect` in [hosts] without it".into(),
    },
    Known {
        text: "could not resolve hostname",
        repair: |host, _| {
            format!(
                "set `address` of `{}` in [hosts], or its name in DNS",
                host.name
            )
        },
    },
    Known {
        text: "command not found",
        repair: install,
    },
    Known {
        text: "hello: not found",
        repair: install,
    },
    Known {
        text: "hello: no such file",
        repair: install,
    },
    Known {
        text: "unrecognized subcommand",
        repair: |_, _| "install the present version of hello there".into(),
    },
];

fn quoted(host: &HostEntry) -> String {
    screen::quote(&host.address)
}

/// Prints the fingerprint of a host's own key, on that host.
const FINGERPRINT: &str = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub";

/// Names the command that learns a key: the same `ssh`, which may ask now. Its options and
/// `ssh_config` say which port and which file of known hosts count.
fn unknown_key(host: &HostEntry, failure: &ConnectFailure) -> String {
    let words = failure
        .argv
        .iter()
        .take_while(|word| **word != host.address);
    let kept = words.filter(|word| !["-T", "--", "-oBatchMode=yes"].contains(&word.as_str()));
    let mut ssh: Vec<String> = kept.map(screen::quote).collect();
    if failure.argv.first().is_none_or(|program| program != "ssh") {
        ssh = vec!["ssh".into()];
    }
    ssh.push(quoted(host));
    format!(
        "on the host, read the fingerprint of its key: {FINGERPRINT}; if ssh shows the same, \
         answer yes: {}",
        ssh.join(" ")
    )
}

/// Repeats the command that `ssh` proposes, which names the file and the port of the old key.
fn changed_key(host: &HostEntry, failure: &ConnectFailure) -> String {
    let proposed = failure
        .stderr
        .iter()
        .map(|line| line.trim())
        .find(|line| line.starts_with("ssh-keygen "))
        .map_or_else(
            || format!("ssh-keygen -R {}", quoted(host)),
            |line| screen::line(line).into_owned(),
        );
    format!(
        "on the host, read the fingerprint of its key: {FINGERPRINT}; if the new one is right, \
         remove the old one: {proposed}"
    )
}

/// Returns the rule for the command that is run behind `sudo -n`.
fn sudo_rule(_: &HostEntry, failure: &ConnectFailure) -> String {
    let typed = failure.argv.join(" ");
    let command: Vec<String> = typed
        .split_whitespace()
        .skip_while(|word| *word != "sudo")
        .skip(1)
        .skip_while(|word| word.starts_with('-'))
        .map(in_sudoers)
        .collect();
    let command = if command.is_empty() {
        "/usr/bin/hello agent --stdio".into()
    } else {
        command.join(" ")
    };
    format!(
        "add to /etc/sudoers.d/hello there, for the account that logs in: ACCOUNT ALL=(root) \
         NOPASSWD: {command}"
    )
}

/// Escapes what has a meaning of its own in a command of sudoers.
fn in_sudoers(word: &str) -> String {
    let escaped = word.chars().map(|c| match c {
        ',' | ':' | '=' | '*' | '?' | '[' | ']' | '\\' => format!("\\{c}"),
        c => c.to_string(),
    });
    escaped.collect()
}

fn install(_: &HostEntry, _: &ConnectFailure) -> String {
    "install hello there; see `hello help install`".into()
}

impl ConnectFailure {
    pub(crate) fn new(fault: impl Into<Fault>) -> Self {
        Self {
            fault: fault.into(),
            argv: Vec::new(),
            stderr: Vec::new(),
            noise: Vec::new(),
        }
    }

    /// Returns why, in one line: the last line of the command itself, if it wrote one.
    pub(crate) fn why(&self) -> String {
        let said = self.last_line().or_else(|| self.last_noise());
        match (&self.fault, said) {
            // The exit code of ssh itself: its own line says more.
            (Fault::Ended(255), Some(line)) => screen::line(&line).into_owned(),
            (Fault::Ended(_) | Fault::Signalled | Fault::Quiet | Fault::Silent(_), Some(line)) => {
                format!("{}: {}", self.fault, screen::line(&line))
            }
            (fault, _) => fault.to_string(),
        }
    }

    /// Returns what repairs it, as far as the text of a program on the way shows it; else the
    /// command that connects, to try it by hand.
    pub(crate) fn repair(&self, host: &HostEntry) -> Option<String> {
        match &self.fault {
            Fault::NoCommand(_) => Some(format!(
                "correct the labels of `{}`, or `connect`",
                host.name
            )),
            #[cfg(feature = "nats")]
            Fault::NoAgent => Some(format!(
                "start the agent on `{}`: systemctl start hello-agent",
                host.name
            )),
            Fault::Skewed { .. } => Some("install the same version of hello there".into()),
            Fault::OtherHost(name) => Some(format!(
                "correct the address of `{}`, or `name` in [agent] of `{name}`",
                host.name
            )),
            _ => {
                let text = self.text().to_lowercase();
                let known = KNOWN.iter().find(|known| text.contains(known.text));
                let known = known.map(|known| (known.repair)(host, self));
                known.or_else(|| (!self.argv.is_empty()).then(|| self.try_by_hand()))
            }
        }
    }

    /// Returns the command that connects, as it is typed.
    fn try_by_hand(&self) -> String {
        let words: Vec<String> = self.argv.iter().map(screen::quote).collect();
        format!("try what it runs: {} < /dev/null", words.join(" "))
    }

    /// Tells whether the same attempt may succeed a moment later: the server dropped the connection
    /// before it looked at the client (`MaxStartups`).
    pub(super) fn may_pass(&self) -> bool {
        let dropped = [
            "kex_exchange_identification",
            "connection reset",
            "closed by remote host",
        ];
        let text = self.text().to_lowercase();
        matches!(self.fault, Fault::Ended(255) | Fault::Quiet)
            && dropped.iter().any(|line| text.contains(line))
    }

    /// Returns the last line that says why, and not how a command is used.
    fn last_line(&self) -> Option<String> {
        let is_advice = |line: &str| line.starts_with("For more information") || line == "Usage:";
        let lines = self.stderr.iter().rev();
        let error = lines.clone().find(|line| line.starts_with("error:"));
        error
            .or_else(|| lines.clone().find(|line| !is_advice(line)))
            .cloned()
    }

    fn text(&self) -> String {
        let noise = String::from_utf8_lossy(&self.noise).into_owned();
        self.stderr.join("\n") + "\n" + &noise
    }

    fn last_noise(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.noise);
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        last.map(|line| line.chars().take(200).collect())
    }
}
