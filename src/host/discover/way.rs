//! The way to a file, link by link, and who could make it lead elsewhere.

use std::{
    ffi::OsString,
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// As the kernel: a longer chain of links is taken for a circle.
const MAX_LINKS: usize = 40;

/// Whether it is root or this user.
pub(super) fn is_us(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// Whether nobody but root and this user can write it, sticky or not.
fn is_own(meta: &Metadata) -> bool {
    meta.mode() & 0o022 == 0 && is_us(meta.uid())
}

/// A path that was resolved.
#[derive(Debug)]
pub(super) struct Way {
    /// Without any link in it.
    pub(super) end: PathBuf,
    /// Each directory that holds a link which was followed.
    links: Vec<PathBuf>,
}

impl Way {
    /// Resolves an absolute path.
    ///
    /// # Errors
    /// When it does not exist or may not be searched.
    pub(super) fn of(named: &Path) -> io::Result<Self> {
        let (mut end, mut links) = (PathBuf::from("/"), Vec::new());
        let reversed = |path: &Path| path.components().rev().map(|c| c.as_os_str().to_owned()).collect::<Vec<OsString>>();
        let mut ahead = reversed(named);
        while let Some(part) = ahead.pop() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => end = PathBuf::from("/"),
                Some(Component::ParentDir) => drop(end.pop()),
                Some(Component::Normal(name)) => {
                    let next = end.join(name);
                    if !next.symlink_metadata()?.is_symlink() {
                        end = next;
                        continue;
                    }
                    links.push(end.clone());
                    if links.len() > MAX_LINKS {
                        return Err(io::Error::from(io::ErrorKind::InvalidInput));
                    }
                    ahead.extend(reversed(&next.read_link()?));
                }
                _ => {}
            }
        }
        // A file that is named as a directory is none.
        let as_directory = named.as_os_str().as_encoded_bytes().ends_with(b"/");
        if as_directory && !end.symlink_metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { end, links })
    }

    /// Whether each link that was followed is root's or this user's word.
    pub(super) fn is_straight(&self) -> bool {
        self.links.iter().all(|dir| dir.symlink_metadata().is_ok_and(|meta| is_own(&meta)))
    }

    /// Whether only root, this user and `owner` decide what stands at the end, and `owner` only within directories of its own:
    /// from the first of them on every one must be `owner`'s, and above them no link may be `owner`'s.
    ///
    /// # Errors
    /// A sentence without its subject that names the directory.
    pub(super) fn is_guarded(&self, owner: u32) -> Result<(), String> {
        let look = |dir: &Path| dir.symlink_metadata().map_err(|e| format!("`{}`: {e}", dir.display()));
        let whom = if is_us(owner) { "root and you".to_owned() } else { format!("root, you and uid {owner}") };
        let (last, mut given) = (self.end.parent().unwrap_or(&self.end), false);
        let dirs: Vec<&Path> = self.end.ancestors().skip(1).collect();
        for dir in dirs.into_iter().rev() {
            let meta = look(dir)?;
            // In a sticky directory nobody else can replace the next one; a file in it they could put there first.
            let others = meta.mode() & 0o022 != 0 && (meta.mode() & 0o1000 == 0 || dir == last);
            if others || !(is_us(meta.uid()) || meta.uid() == owner) {
                return Err(format!("others than {whom} can write `{}`", dir.display()));
            }
            if given && is_us(meta.uid()) {
                return Err(format!("uid {owner} can put another directory in the place of `{}`, which is not its own", dir.display()));
            }
            given |= !is_us(meta.uid());
        }
        if given || self.is_straight() {
            return Ok(());
        }
        Err("it is reached by a link that others than root and you can change".into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_ends_where_the_kernel_ends() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::write(dir.join("a/b/file"), "").unwrap();
        symlink("a/b", dir.join("relative")).unwrap();
        symlink(dir.join("a"), dir.join("absolute")).unwrap();
        symlink("../relative/file", dir.join("a/up")).unwrap();
        symlink("round", dir.join("round")).unwrap();
        for named in ["a/b/file", "relative/file", "absolute/b/../up", "a/./b//file", "absolute/b/", "relative"] {
            let named = dir.join(named);
            assert_eq!(Way::of(&named).unwrap().end, named.canonicalize().unwrap(), "{}", named.display());
        }
        for named in ["none", "a/b/file/more", "round", "a/b/file/"] {
            assert!(Way::of(&dir.join(named)).is_err(), "{named}");
        }
        assert_eq!(Way::of(&dir.join("absolute/up")).unwrap().links, [dir.clone(), dir.join("a"), dir]);
    }
}
