//! Kinds: groups that know a daemon, embedded as data in the schema of a group of `fleet.toml`.

/// The defaults for one daemon.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The name that a group's `kind` has.
    pub name: &'static str,
    /// Its TOML: the keys of a group, and behind them `[cells]`, its row in the tables about kinds.
    /// The first comment begins with the name and describes what the daemon does on the signal.
    pub text: &'static str,
}

/// The beginning of its row in the tables about kinds, which is no part of a group.
const CELLS: &str = "\n[cells]\n";

macro_rules! kinds {
    ($($name:literal),+ $(,)?) => {
        &[$(Kind { name: $name, text: include_str!(concat!("../kinds/", $name, ".toml")) }),+]
    };
}

/// Every kind. A group takes from its kind each key that it does not set itself.
pub const KINDS: &[Kind] = kinds![
    "hello",
    "nginx",
    "haproxy",
    "prometheus",
    "alertmanager",
    "nats-server",
    "postgres",
    "gunicorn",
    "apache2",
    "uwsgi",
    "squid",
    "postfix",
    "icinga2",
    "php-fpm",
    "lighttpd",
    "named",
    "mosquitto",
    "dovecot",
    "unbound",
    "keepalived",
    "sshd",
    "dnsmasq",
    "dnsmasq-hosts",
    "rsyslog",
    "caddy",
    "chronyd",
    "collectd",
    "cron",
    "privoxy",
    "redis",
    "supervisord",
];

impl Kind {
    /// Returns the keys of its group as TOML.
    pub(super) fn keys(&self) -> &'static str {
        self.text
            .split_once(CELLS)
            .map_or(self.text, |(keys, _)| keys)
    }

    /// Returns what the daemon does on the signal: the first line of its comment.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("# ")
    }

    /// Returns the names of the variables of a process's environment that the kind reads.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &'static str> + use<> {
        let behind = self.keys().split("{env:").skip(1);
        behind.filter_map(|text| Some(text.split_once('}')?.0))
    }

    /// Returns the kind as a group, to be copied into `fleet.toml` and changed.
    #[must_use]
    pub fn as_group(&self) -> String {
        let body = self
            .keys()
            .replace("[[confirm]]", "[[group.confirm]]")
            .replace("[[reject]]", "[[group.reject]]");
        let length = body
            .lines()
            .take_while(|line| line.starts_with('#'))
            .count();
        let comments: Vec<&str> = body.lines().take(length).collect();
        let keys: Vec<&str> = body.lines().skip(length).collect();
        format!(
            "{}\n[[group]]\nname = \"{}\"\n{}\n",
            comments.join("\n"),
            self.name,
            keys.join("\n")
        )
    }
}
