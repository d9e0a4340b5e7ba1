//! The digest of a file or directory. No trust is checked: the digest only decides whether a run
//! begins, and that run checks everything.

use std::path::Path;

use crate::{
    config::{self, MAX_TARGET, ReadError},
    host::target::behind::followed,
    step,
    tree::Tree,
    trust::ResolvedPath,
};

/// The content of a subject, as far as two reads are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) content: Content,
    /// The digest of the content that it includes. Empty if there is none.
    pub(super) included: String,
}

/// The content itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// The digest of its bytes.
    Sha256(String),
    /// Why it cannot be read. It is missing, for example.
    Unreadable(String),
}

impl Content {
    /// Returns the digest; none of a content that cannot be read.
    pub(super) fn sha256(&self) -> Option<&String> {
        match self {
            Self::Sha256(sha256) => Some(sha256),
            Self::Unreadable(_) => None,
        }
    }
}

/// Reads the content at `named`, and what these directives in it include.
pub(super) fn digest(named: &Path, includes: &[String]) -> Digest {
    let resolved = match ResolvedPath::of(named) {
        Ok(resolved) => resolved,
        Err(e) => {
            return Digest {
                content: Content::Unreadable(e.to_string()),
                included: String::new(),
            };
        }
    };
    let included = followed(&resolved.end, includes);
    Digest {
        content: read(&resolved)
            .map_or_else(|e| Content::Unreadable(e.to_string()), Content::Sha256),
        included: included.map(|followed| followed.digest).unwrap_or_default(),
    }
}

fn read(resolved: &ResolvedPath) -> Result<String, ReadError> {
    let fd = resolved.open()?;
    if resolved.is_directory() {
        let tree = Tree::read(&fd, &mut |_, _| Ok(()))?;
        return Ok(step::Content::from_tree(tree)?.sha256);
    }
    Ok(config::digest(&config::read_fd(fd, MAX_TARGET)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn the_digest_is_that_of_the_file_behind_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("..1")).unwrap();
        fs::write(at("..1/x"), "one").unwrap();
        symlink("..1", at("..data")).unwrap();
        symlink("..data/x", at("x")).unwrap();
        let found = digest(&at("x"), &[]);
        assert_eq!(found.content, Content::Sha256(config::digest(b"one")));
    }

    #[test]
    fn a_missing_file_is_a_content_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let missing = digest(&dir.path().join("x"), &[]);
        assert_eq!(missing.content.sha256(), None);
    }

    #[test]
    fn a_change_of_an_included_file_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("main.conf");
        fs::create_dir(dir.path().join("conf.d")).unwrap();
        fs::write(&main, "include conf.d/*.conf;\n").unwrap();
        let includes = ["include".to_owned()];
        let before = digest(&main, &includes);
        fs::write(dir.path().join("conf.d/a.conf"), "a").unwrap();
        let after = digest(&main, &includes);
        assert_eq!(before.content, after.content);
        assert_ne!(before.included, after.included);
    }

    #[test]
    fn a_directory_has_the_digest_that_a_run_reports() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        let found = digest(dir.path(), &[]);
        let content = step::Content::read(dir.path()).unwrap();
        assert_eq!(found.content, Content::Sha256(content.sha256));
    }
}
