//! The new content that another tool put next to a target: `source` of a group.

use std::{
    ffi::{OsStr, OsString},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Statx};

use crate::{
    config::{self, MAX_TARGET, ReadError, Unacceptable},
    event::Verdict,
    step::{Content, StagedSource},
    tree::{Tree, kind, named_in, shown, status},
    trust::{Distrust, ResolvedPath, only_us_can_write},
};

/// Reads the new content of the target at `config`, once, from the path that `source` names.
pub(crate) fn read_source(source: &str, config: &Path) -> StagedSource {
    let path = source_path(source, config);
    let content = match ResolvedPath::of(&path) {
        Ok(resolved) => {
            let content = read(&resolved);
            Some(content.map_err(|(verdict, why)| (verdict, format!("`{}`: {why}", shown(&path)))))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(Err((
            Verdict::Failed,
            format!("cannot read `{}`: {e}", shown(&path)),
        ))),
    };
    StagedSource {
        named: path,
        content,
        key: None,
    }
}

/// Returns `source` with each `{config}` replaced by the path of the target, byte for byte.
pub(crate) fn source_path(source: &str, config: &Path) -> PathBuf {
    let mut path = OsString::new();
    for (index, part) in source.split("{config}").enumerate() {
        if index > 0 {
            path.push(config);
        }
        path.push(part);
    }
    PathBuf::from(path)
}

/// Reads the source. A link that another user could create would lead to any file that root can
/// read, so the path must be trusted.
fn read(resolved: &ResolvedPath) -> Result<Content, (Verdict, String)> {
    let failed = |e: std::io::Error| (Verdict::Failed, e.to_string());
    resolved.writable_only_by_us().map_err(|why| match why {
        Distrust::Writable { path, .. } if path == resolved.end => {
            let why = Unacceptable::Writable(named_in(Path::new("")));
            (Verdict::Refused, why.to_string())
        }
        why => (Verdict::Refused, why.to_string()),
    })?;
    content(resolved.open().map_err(failed)?).map_err(|e| match e {
        SourceError::Untrusted(why) => (Verdict::Refused, why.to_string()),
        SourceError::Read(ReadError::Unacceptable(why)) => (Verdict::Invalid, why.to_string()),
        SourceError::Read(ReadError::Io(e)) => failed(e),
    })
}

enum SourceError {
    Untrusted(Unacceptable),
    Read(ReadError),
}

/// Reads the open source. The trust check is of the opened file: another one may have its path by
/// now.
fn content(fd: OwnedFd) -> Result<Content, SourceError> {
    let io = |e: std::io::Error| SourceError::Read(e.into());
    let stat = status(&fd, OsStr::new("")).map_err(|e| io(e.into()))?;
    if kind(&stat) == FileType::Directory {
        let mut why = None;
        let tree = Tree::read(&fd, &mut |path, stat| {
            check_trust(path, stat).map_err(|refused| why.insert(refused).clone())
        });
        return match (tree, why) {
            (_, Some(why)) => Err(SourceError::Untrusted(why)),
            (tree, None) => Content::from_tree(tree.map_err(SourceError::Read)?).map_err(io),
        };
    }
    check_trust(Path::new(""), &stat).map_err(SourceError::Untrusted)?;
    config::read_fd(fd, MAX_TARGET)
        .map(Content::new)
        .map_err(SourceError::Read)
}

/// Checks that only root and the caller can write an entry. The mode of a link is always 777 and
/// has no meaning (symlink(7)).
fn check_trust(path: &Path, stat: &Statx) -> Result<(), Unacceptable> {
    let mode = match kind(stat) {
        FileType::Symlink => 0,
        _ => stat.stx_mode.into(),
    };
    if only_us_can_write(stat.stx_uid, mode) {
        Ok(())
    } else {
        Err(Unacceptable::Writable(named_in(path)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn set_mode(&self, name: &str, mode: u32) {
            std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode))
                .unwrap()
        }

        fn read(&self) -> Option<Result<Content, (Verdict, String)>> {
            read_source("{config}.new", &self.path("a b")).content
        }

        #[track_caller]
        fn is_refused(&self, reason: &str) {
            let (verdict, why) = self.read().unwrap().unwrap_err();
            assert_eq!(verdict, Verdict::Refused);
            assert!(why.contains(reason), "{why}");
            assert!(why.contains("a b.new"), "{why}");
        }
    }

    #[test]
    fn a_file_is_read_unless_others_can_write_it() {
        let place = Place::new();
        assert!(place.read().is_none());
        std::fs::write(place.path("a b.new"), "new").unwrap();
        place.set_mode("a b.new", 0o644);
        assert_eq!(
            place.read().unwrap().unwrap(),
            Content::new(b"new".to_vec())
        );
        place.set_mode("a b.new", 0o664);
        place.is_refused("can write it");
    }

    #[test]
    fn a_link_is_followed_unless_others_can_change_it() {
        let place = Place::new();
        std::fs::create_dir(place.path("real")).unwrap();
        std::fs::write(place.path("real/x"), "new").unwrap();
        place.set_mode("real/x", 0o644);
        symlink("real/x", place.path("a b.new")).unwrap();
        // In a sticky directory no other user can replace the caller's link.
        place.set_mode(".", 0o1777);
        assert!(place.read().unwrap().is_ok());
        for (name, open) in [("real", 0o757), (".", 0o777)] {
            place.set_mode(name, open);
            place.is_refused("users other than root and you can");
            place.set_mode(name, 0o755);
            assert!(place.read().unwrap().is_ok());
        }
    }

    #[test]
    fn a_fifo_is_not_read() {
        let place = Place::new();
        nix::unistd::mkfifo(&place.path("a b.new"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(place.read().unwrap().unwrap_err().0, Verdict::Invalid);
    }

    #[test]
    fn a_directory_is_read_unless_others_can_write_an_entry() {
        let place = Place::new();
        std::fs::create_dir(place.path("a b.new")).unwrap();
        std::fs::write(place.path("a b.new/x"), "x").unwrap();
        place.set_mode("a b.new", 0o755);
        place.set_mode("a b.new/x", 0o600);
        assert!(place.read().unwrap().unwrap().tree.is_some());
        place.set_mode("a b.new/x", 0o622);
        place.is_refused("`x` in it");
        place.set_mode("a b.new/x", 0o600);
        if nix::unistd::geteuid().is_root() {
            chown(place.path("a b.new/x"), Some(65534), None).unwrap();
            place.is_refused("`x` in it");
            chown(place.path("."), Some(65534), None).unwrap();
            place.is_refused("users other than root and you can write");
        }
    }

    #[test]
    fn each_placeholder_becomes_the_path_of_the_target() {
        assert_eq!(
            source_path("/x{config}-{config}.d", Path::new("/a b")),
            Path::new("/x/a b-/a b.d")
        );
    }
}
