//! Kinds: groups that know a daemon, embedded as data in the schema of a group of `fleet.toml`.

/// What is known of one daemon.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As a group's `kind` names it.
    pub name: &'static str,
    /// Its TOML; the first comment begins with the name and says what the daemon does on the
    /// signal.
    pub text: &'static str,
}

macro_rules! kinds {
    ($($name:literal),+ $(,)?) => {
        &[$(Kind { name: $name, text: include_str!(concat!("../kinds/", $name, ".toml")) }),+]
    };
}

/// Every kind; a group of that kind takes from it what it does not say itself.
pub const KINDS: &[Kind] = kinds![
    "hello",
    "nginx",
    "haproxy",
    "prometheus",
    "alertmanager",
    "nats-server",
    "postgres",
    "gunicorn",
    "sshd",
    "dnsmasq",
    "dnsmasq-hosts",
    "rsyslog",
];

impl Kind {
    /// What the daemon does on the signal: the first line of its comment.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("# ")
    }

    /// As a group of its own, to be copied into `fleet.toml` and changed.
    #[must_use]
    pub fn as_group(&self) -> String {
        let body = self
            .text
            .replace("[[confirm]]", "[[group.confirm]]")
            .replace("[[reject]]", "[[group.reject]]");
        let (comments, keys): (Vec<&str>, Vec<&str>) = {
            let at = body
                .lines()
                .take_while(|line| line.starts_with('#'))
                .count();
            (
                body.lines().take(at).collect(),
                body.lines().skip(at).collect(),
            )
        };
        format!(
            "{}\n[[group]]\nname = \"{}\"\n{}\n",
            comments.join("\n"),
            self.name,
            keys.join("\n")
        )
    }
}
