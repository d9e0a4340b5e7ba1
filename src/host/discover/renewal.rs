//! The program of a process that executes itself again on the signal: the file that is at its path
//! by then. If it is gone, the process dies of the reload. If it is another one, that one loads the
//! config.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use crate::kernel::strip_deleted;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};

use crate::{
    fleet::{ExecutesItself, Group, fits},
    identity::{Identity, Line, Renewal},
    refusal::Refusal,
};

/// Returns the program that a reload executes. `exe` is `/proc/PID/exe`; `args` are the arguments
/// without `argv[0]`, or the words of the title.
#[must_use]
pub(crate) fn of(identity: &Identity, group: &Group, exe: &Path, args: &[String]) -> Renewal {
    if group.executes_itself == ExecutesItself::No {
        return Renewal::None;
    }
    if let Some(script) = script_of(identity.pid, group, args)
        && seen_by(identity.pid, &script).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        && seen_by(identity.pid, Path::new("/")).is_ok()
    {
        return Renewal::Missing(script);
    }
    let path = path_of(identity, exe, args);
    match seen_by(identity.pid, &path) {
        Ok((_, inode)) if inode == identity.exe => Renewal::Same,
        Ok((end, inode)) if end == strip_deleted(exe) => Renewal::Another(path, inode),
        Ok(_) => Renewal::Elsewhere(path),
        // A process that has ended meanwhile has lost nothing.
        Err(_) if seen_by(identity.pid, Path::new("/")).is_err() => Renewal::Same,
        Err(_) => Renewal::Missing(path),
    }
}

/// Why a process must not execute itself again. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRenewal {
    #[error("executes `{}` again on {trigger}, and no program is there any more: it would die of \
             it", .path.display())]
    Missing { path: PathBuf, trigger: String },
    #[error("executes `{}` again on {trigger}, which leads to another program than it runs by now: \
             that is an upgrade and no reload", .path.display())]
    Elsewhere { path: PathBuf, trigger: String },
}

/// Returns why the process must not be signalled; none if the program exists.
#[must_use]
pub(crate) fn refuses(renewal: &Renewal, group: &Group) -> Option<Refusal<NoRenewal>> {
    let trigger = || group.trigger().to_string();
    match renewal {
        Renewal::None | Renewal::Same | Renewal::Another(..) => None,
        Renewal::Missing(path) => {
            let path = path.clone();
            let why = Refusal::from(NoRenewal::Missing {
                path,
                trigger: trigger(),
            });
            Some(why.with_hint("put one there, or restart it"))
        }
        Renewal::Elsewhere(path) => {
            let path = path.clone();
            let why = Refusal::from(NoRenewal::Elsewhere {
                path,
                trigger: trigger(),
            });
            Some(why.with_hint("restart it"))
        }
    }
}

/// Returns the word of a title that names the executable by its absolute path, as the one of sshd
/// does, and its index.
#[must_use]
pub(crate) fn named_in_title(exe: &Path, words: &[String]) -> Option<(usize, PathBuf)> {
    let name = strip_deleted(exe).file_name()?;
    let is_it = |word: &&String| {
        word.starts_with('/') && Path::new(word.as_str()).file_name() == Some(name)
    };
    let (at, word) = words.iter().enumerate().find(|(_, word)| is_it(word))?;
    Some((at, word.into()))
}

/// The script that an interpreter of `group` runs, as this process names it.
fn script_of(pid: i32, group: &Group, args: &[String]) -> Option<PathBuf> {
    let is_script = |arg: &&String| {
        group
            .matching
            .script
            .iter()
            .any(|pattern| fits(pattern, arg))
    };
    let script = Path::new(args.iter().find(is_script)?);
    // A bare name may be that of a module.
    if script.is_absolute() {
        return Some(script.to_owned());
    }
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (script.components().count() > 1).then(|| cwd.join(script))
}

/// The path that the process executes: the name that it was started by, which may be a link to the
/// newest version, else where its executable was.
fn path_of(identity: &Identity, exe: &Path, args: &[String]) -> PathBuf {
    let named = match identity.line {
        Line::Title => named_in_title(exe, args).map(|(_, path)| path),
        // The arguments are without its name.
        Line::Told => named_in_title(exe, &title_of(identity.pid)).map(|(_, path)| path),
        Line::Arguments => crate::host::exec::placeholders::own_name(identity.pid),
    };
    named.unwrap_or_else(|| strip_deleted(exe).to_owned())
}

/// The words of the title of a process.
fn title_of(pid: i32) -> Vec<String> {
    let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title)
        .trim_end_matches('\0')
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Resolves an absolute path as the process sees it: its end, as this program would write it, with
/// device and inode.
fn seen_by(pid: i32, path: &Path) -> io::Result<(PathBuf, (u64, u64))> {
    let root: OwnedFd = open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let below = path.strip_prefix("/").map_err(io::Error::other)?;
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    let file = openat2(
        &root,
        below,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )?;
    let stat = fstat(&file)?;
    let end = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok((end, (stat.st_dev, stat.st_ino)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::process::{Child, Command};

    use super::*;
    use crate::fleet::Fleet;

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn copy(to: &Path) {
        assert!(
            Command::new("cp")
                .arg("/bin/sleep")
                .arg(to)
                .status()
                .unwrap()
                .success()
        );
    }

    fn renewal(of: &Ended, kind: &str) -> Renewal {
        let group = Fleet::of_kind(kind).unwrap().groups.remove(0);
        let pid = i32::try_from(of.0.id()).unwrap();
        let proc = PathBuf::from(format!("/proc/{pid}/exe"));
        let exe = crate::host::exec::placeholders::inode(&proc);
        let identity = Identity {
            pid,
            exe,
            ..Identity::default()
        };
        super::of(
            &identity,
            &group,
            &proc.read_link().unwrap(),
            &["60".into()],
        )
    }

    #[test]
    fn the_program_at_its_path_is_what_it_executes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (exe, newer, link) = (root.join("one"), root.join("two"), root.join("current"));
        copy(&exe);
        copy(&newer);
        std::os::unix::fs::symlink(&exe, &link).unwrap();
        let by_path = Ended(Command::new(&exe).arg("60").spawn().unwrap());
        let by_link = Ended(Command::new(&link).arg("60").spawn().unwrap());
        // Its command line is the one of this process until it executes, and empty for a moment
        // then.
        let of =
            |child: &Ended, name: &str| PathBuf::from(format!("/proc/{}/{name}", child.0.id()));
        let executes = |child: &Ended| {
            of(child, "exe").read_link().unwrap() == exe
                && std::fs::read(of(child, "cmdline"))
                    .unwrap()
                    .ends_with(b"\x0060\0")
        };
        while !executes(&by_path) || !executes(&by_link) {
            std::thread::yield_now();
        }
        assert_eq!(
            (renewal(&by_path, "sshd"), renewal(&by_link, "haproxy")),
            (Renewal::Same, Renewal::Same)
        );
        assert_eq!(renewal(&by_path, "nginx"), Renewal::None);
        // A newer release behind the link: its own file is as it was.
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&newer, &link).unwrap();
        assert!(matches!(renewal(&by_link, "sshd"), Renewal::Elsewhere(path) if path == link));
        assert_eq!(renewal(&by_path, "sshd"), Renewal::Same);
        std::fs::rename(&newer, &exe).unwrap();
        assert!(matches!(renewal(&by_path, "sshd"), Renewal::Another(path, _) if path == exe));
        std::fs::remove_file(&exe).unwrap();
        assert_eq!(
            (renewal(&by_path, "sshd"), renewal(&by_link, "haproxy")),
            (Renewal::Missing(exe), Renewal::Missing(link))
        );
    }

    #[test]
    fn a_title_names_the_program_by_its_path_or_not_at_all() {
        let words = |title: &str| title.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let named = |exe: &str, title: &str| {
            named_in_title(Path::new(exe), &words(title))
                .map(|(at, path)| (at, path.display().to_string()))
        };
        assert_eq!(
            named("/usr/sbin/sshd", "/usr/sbin/sshd -D [listener]"),
            Some((0, "/usr/sbin/sshd".into()))
        );
        assert_eq!(
            named("/opt/2/sshd (deleted)", "/opt/now/sshd -D"),
            Some((0, "/opt/now/sshd".into()))
        );
        assert_eq!(
            named("/usr/sbin/nginx", "master process /usr/sbin/nginx -c /a"),
            Some((2, "/usr/sbin/nginx".into()))
        );
        assert_eq!(
            named("/usr/sbin/php-fpm8.2", "master process (/etc/php/fpm.conf)"),
            None
        );
        assert_eq!(named("/usr/sbin/proftpd", "(accepting connections)"), None);
    }
}
