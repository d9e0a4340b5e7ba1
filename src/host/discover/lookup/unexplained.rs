//! Words of a command line that may name a config without a known option.

use std::path::Path;

use super::Lookup;
use crate::host::{exec::placeholders::inode, proc::cmdline::CommandLine};

/// Parts of the names of options whose value is no config.
const OTHER_OPTIONS: &[&str] = &["pid", "log", "sock", "lock", "cert", "key", "-jar"];

/// Directories that hold no config.
const OTHER_PLACES: &[&str] = &["/run", "/var/run", "/var/log", "/dev", "/proc", "/sys"];

impl Lookup<'_> {
    /// Returns a word of the command line that may name the config in place of `default`: an
    /// existing file, if the group does not declare how the program reads its options.
    pub(in crate::host::discover) fn unexplained(&self, default: &Path) -> Option<String> {
        if self.group.reading.getopt.is_some() {
            return None;
        }
        let line = CommandLine {
            name: String::new(),
            rewritten: false,
            args: self.found.args.clone(),
        };
        let script = line.script(&self.found.exe, false);
        let args = self.options(&self.found.args).args;
        let may_be = |(index, word): (usize, &String)| {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if word.starts_with('-') => (option, value),
                _ if word.starts_with('-') => return None,
                _ => (
                    args.get(index.wrapping_sub(1))
                        .filter(|before| before.starts_with('-'))
                        .map_or("", String::as_str),
                    word.as_str(),
                ),
            };
            let option = option.to_ascii_lowercase();
            let is_other = OTHER_OPTIONS.iter().any(|name| option.contains(name))
                || script == Some(value)
                || value.ends_with(".jar");
            let path = self
                .cwd()
                .ok()?
                .join(value)
                .canonicalize()
                .ok()
                .filter(|path| path.is_file() && !is_other)?;
            let is_config = !OTHER_PLACES.iter().any(|dir| path.starts_with(dir))
                && inode(&path) != inode(default);
            is_config.then(|| word.clone())
        };
        args.iter().enumerate().find_map(may_be)
    }
}
