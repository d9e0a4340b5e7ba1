//! What somebody else's tool put beside a target to become it: `source` of a group.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Statx};

use crate::{
    config::{MAX_TARGET, ReadError},
    event::Verdict,
    step::{Content, StagedSource},
    tree::{Tree, shown, status},
    trust::{Distrust, ResolvedPath, is_us},
};

/// Looks where `source` says for the new content of the target at `config`, and reads what is
/// there, once.
pub(crate) fn read_source(source: &str, config: &Path) -> StagedSource {
    let mut path = OsString::new();
    for (at, part) in source.split("{config}").enumerate() {
        // Whatever signs are in the path, they stay.
        path.push(if at == 0 {
            OsStr::new("")
        } else {
            config.as_os_str()
        });
        path.push(part);
    }
    let path = PathBuf::from(path);
    let content = match ResolvedPath::of(&path) {
        // A link that others could put there would lead to any file that root can read.
        Ok(way) => Some(
            read(&way).map_err(|(verdict, why)| (verdict, format!("`{}`: {why}", shown(&path)))),
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(Err((
            Verdict::Failed,
            format!("cannot read `{}`: {e}", shown(&path)),
        ))),
    };
    StagedSource { path, content }
}

fn read(way: &ResolvedPath) -> Result<Content, (Verdict, String)> {
    let failed = |e: std::io::Error| (Verdict::Failed, e.to_string());
    way.is_ours().map_err(|why| match why {
        Distrust::Writable { place, .. } if place == way.end => (
            Verdict::Refused,
            "others than root and you can write it".into(),
        ),
        why => (Verdict::Refused, why.to_string()),
    })?;
    content(way.open().map_err(failed)?).map_err(|e| match e {
        Unread::Untrusted(why) => (Verdict::Refused, why),
        Unread::Read(ReadError::Unacceptable(why)) => (Verdict::Invalid, why),
        Unread::Read(ReadError::Io(e)) => failed(e),
    })
}

enum Unread {
    Untrusted(String),
    Read(ReadError),
}

/// Trust is of what was opened, not of what stood at a path a moment ago.
fn content(fd: OwnedFd) -> Result<Content, Unread> {
    let io = |e: std::io::Error| Unread::Read(e.into());
    let untrusted = |path: &Path, stat: &Statx| {
        let writable = stat.stx_mode & 0o022 != 0
            && FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Symlink;
        let who = if path.as_os_str().is_empty() {
            "it".to_owned()
        } else {
            format!("`{}` in it", shown(path))
        };
        (writable || !is_us(stat.stx_uid))
            .then(|| format!("others than root and you can write {who}"))
    };
    let stat = status(&fd, OsStr::new("")).map_err(|e| io(e.into()))?;
    if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory {
        let mut why = None;
        let tree = Tree::read(&fd, &mut |path, stat| match untrusted(path, stat) {
            Some(text) => Err(why.insert(text).clone()),
            None => Ok(()),
        });
        return match (tree, why) {
            (_, Some(why)) => Err(Unread::Untrusted(why)),
            (tree, None) => Content::from_tree(tree.map_err(Unread::Read)?).map_err(io),
        };
    }
    if let Some(why) = untrusted(Path::new(""), &stat) {
        return Err(Unread::Untrusted(why));
    }
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    if kind != FileType::RegularFile {
        return Err(Unread::Read(ReadError::Unacceptable(format!(
            "it is no regular file ({kind:?})"
        ))));
    }
    let mut bytes = Vec::new();
    File::from(fd)
        .take(MAX_TARGET + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    match bytes.len() as u64 {
        length if length > MAX_TARGET => Err(Unread::Read(ReadError::Unacceptable(format!(
            "it is larger than {MAX_TARGET} bytes"
        )))),
        _ => Ok(Content::new(bytes)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn what_the_operators_own_tool_put_there_is_read_and_what_others_could_have_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = |name: &str, mode: u32| {
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap()
        };
        let go = || read_source("{config}.new", &at("a b")).content;
        let refused = |what: &str| {
            let (verdict, why) = go().unwrap().unwrap_err();
            assert!(
                verdict == Verdict::Refused && why.contains(what) && why.contains("a b.new"),
                "{why}"
            );
        };
        assert!(go().is_none());
        std::fs::write(at("a b.new"), "new").unwrap();
        mode("a b.new", 0o644);
        assert_eq!(go().unwrap().unwrap(), Content::new(b"new".to_vec()));
        mode("a b.new", 0o664);
        refused("can write it");
        mode("a b.new", 0o644);
        // Also where only their word would lead to it.
        std::fs::create_dir(at("real")).unwrap();
        std::fs::rename(at("a b.new"), at("real/x")).unwrap();
        symlink("real/x", at("a b.new")).unwrap();
        // In a sticky directory one's own file is one's own.
        mode(".", 0o1777);
        assert!(go().unwrap().is_ok());
        for (name, open) in [("real", 0o757), (".", 0o777)] {
            mode(name, open);
            refused("others than root and you can");
            mode(name, 0o755);
            assert!(go().unwrap().is_ok());
        }
        std::fs::remove_file(at("a b.new")).unwrap();
        nix::unistd::mkfifo(&at("a b.new"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(go().unwrap().unwrap_err().0, Verdict::Invalid);
        std::fs::remove_file(at("a b.new")).unwrap();
        std::fs::create_dir(at("a b.new")).unwrap();
        std::fs::write(at("a b.new/x"), "x").unwrap();
        mode("a b.new", 0o755);
        mode("a b.new/x", 0o600);
        assert!(go().unwrap().unwrap().tree.is_some());
        mode("a b.new/x", 0o622);
        refused("`x` in it");
        mode("a b.new/x", 0o600);
        if nix::unistd::geteuid().is_root() {
            chown(at("a b.new/x"), Some(65534), None).unwrap();
            refused("`x` in it");
            chown(dir.path(), Some(65534), None).unwrap();
            refused("others than root and you can write");
        }
        assert_eq!(
            read_source("/x{config}-{config}.d", Path::new("/a b")).path,
            Path::new("/x/a b-/a b.d")
        );
    }
}
