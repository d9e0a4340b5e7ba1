//! A key of a store as the target of a group.
//!
//! A target is named by a path in plans, journals and reports. The path of a file is absolute, and
//! that of a key is its URL, so that no two of them are equal.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    group::{Group, Speaks},
    path_base::PathBase,
    source::{ContentSource, Key},
    spanned::{SpannedError, spanned},
};

/// The validator of the kind `hello` for a file.
const CHECK_FILE: [&str; 3] = ["{exe}", "check", "{candidate}"];

/// The same for a key: it lies over the file that the server reads as well.
const CHECK_KEY: [&str; 5] = ["{exe}", "check", "{opt:--config}", "--over", "{candidate}"];

/// Returns the URL of a target that is a key; none of a file or a directory.
#[must_use]
pub fn url_of(target: &Path) -> Option<&str> {
    target.to_str().filter(|_| !target.is_absolute())
}

impl Key {
    /// Returns the name of the key where it is a target.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        PathBuf::from(&self.url)
    }

    /// Tells whether only holders of a credential may read the key.
    #[must_use]
    pub fn needs_credentials(&self) -> bool {
        !self.access.files.is_empty()
    }
}

impl Group {
    /// Returns the key that is the group's target; none if its targets are files.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        match self.config.first()?.first()? {
            PathBase::Key(key) => Some(key),
            _ => None,
        }
    }

    /// Adapts a group whose target is a key, and checks that every other setting of it goes with
    /// one. `at` is the place of `config`.
    pub(super) fn with_key_target(mut self, at: Range<usize>) -> Result<Self, SpannedError> {
        let Some(key) = self.key() else {
            return Ok(self);
        };
        if !is_distinct(&key.url) {
            let why = "a target is no key with an empty part, or with a part of one dot";
            return Err(spanned(at, why).hinted("write such a `/` as %2F"));
        }
        let reads_files = [
            ("restart_keys", &self.restart_keys),
            ("restart_value", &self.restart_value),
            ("restart_pending", &self.restart_pending),
            ("overridden_keys", &self.overridden_keys),
        ];
        if let Some((name, _)) = reads_files.iter().find(|(_, argv)| !argv.is_empty()) {
            let why = format!("`{name}` reads a file, and the target of this group is a key");
            return Err(spanned(at, why).hinted(format!("set `{name} = []`")));
        }
        if matches!(self.source, Some(ContentSource::Path(_))) {
            let why = "a `source` with {config} is beside a file, and the target is a key";
            return Err(spanned(at, why).hinted("name the new content with --config"));
        }
        if self.speaks == Speaks::Hello && self.validate == CHECK_FILE {
            self.validate = CHECK_KEY.map(str::to_owned).to_vec();
        }
        Ok(self)
    }
}

/// Tells whether no other key has a URL that is the same path.
fn is_distinct(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    rest.split('/').all(|part| !part.is_empty() && part != ".")
}

/// Fails if two groups name one key by two URLs: each would undo the change of the other.
pub(super) fn check_spelling(groups: &[Group], spans: &[Range<usize>]) -> Result<(), SpannedError> {
    for (index, group) in groups.iter().enumerate() {
        let Some(key) = group.key() else { continue };
        let other = groups[..index]
            .iter()
            .filter_map(|other| Some((other, other.key()?)))
            .find(|(_, other)| other.url != key.url && other.address() == key.address());
        if let Some((other, its_key)) = other {
            let why = format!(
                "groups `{}` and `{}` name one key by two URLs",
                other.name, group.name
            );
            return Err(spanned(spans[index].clone(), why)
                .hinted(format!("write `{}` in both", its_key.url)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_the_name_of_a_key_and_a_path_is_not() {
        let url = "etcd+https://h/a%2Fb";
        assert_eq!(url_of(Path::new(url)), Some(url));
        assert_eq!(url_of(Path::new("/etc/x")), None);
    }

    #[test]
    fn urls_that_are_one_path_are_refused() {
        for (url, distinct) in [
            ("etcd+https://h/a/b", true),
            ("etcd+https://h/%2Fa", true),
            ("etcd+https://h//a", false),
            ("https://h/a/./b", false),
            ("https://h/a/", false),
        ] {
            assert_eq!(is_distinct(url), distinct, "{url}");
        }
    }
}
