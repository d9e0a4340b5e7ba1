//! Facts about processes, files and endpoints, read without asking `hello`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A config whose message is `message`. Two with another `comment` differ in bytes only.
pub(crate) fn config(message: &str, comment: usize) -> Vec<u8> {
    format!("# comment {comment}\nmessage = \"{message}\"\nlisten = \"127.0.0.1:0\"\n").into_bytes()
}

pub(crate) fn message_of(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("message = \""))?;
    Some(line.split_once('"')?.0.to_owned())
}

/// State letter and start time of a process.
pub(crate) fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((
        fields.next()?.chars().next()?,
        fields.nth(18)?.parse().ok()?,
    ))
}

pub(crate) fn started_at(pid: i32) -> Option<u64> {
    stat(pid).map(|(_, started)| started)
}

/// Whether exactly this process is alive. A zombie is not.
pub(crate) fn lives(pid: i32, started: u64) -> bool {
    stat(pid).is_some_and(|(state, at)| at == started && !matches!(state, 'Z' | 'X'))
}

/// The content of a path: bytes, owner and mode, inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) sha256: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) inode: u64,
}

/// A target's file: the target itself, or the file that servers read in it.
pub(crate) fn file_of(target: &Path) -> PathBuf {
    if target.is_dir() {
        target.join("web.toml")
    } else {
        target.to_owned()
    }
}

pub(crate) fn seen(target: &Path) -> Option<Seen> {
    let (about, bytes) = (
        std::fs::metadata(target).ok()?,
        std::fs::read(file_of(target)).ok()?,
    );
    Some(Seen {
        sha256: digest(&bytes),
        bytes,
        mode: about.mode() & 0o7777,
        owner: (about.uid(), about.gid()),
        inode: about.ino(),
    })
}

/// Names beside a target that `hello` uses for its own files.
pub(crate) fn hidden(target: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else {
        return Vec::new();
    };
    let prefix = format!(".{}.hello-", name.to_string_lossy());
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| e.path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with(&prefix))
        })
        .collect()
}

/// An answer: its head in lower case, and its body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Asks over a fresh connection.
pub(crate) fn ask(url: &str, path: &str, limit: Duration) -> Option<Answer> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer {
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}

/// Processes whose command line names `dir`.
pub(crate) fn processes_of(dir: &Path) -> Vec<(i32, u64, String)> {
    let (dir, mut found) = (dir.display().to_string(), Vec::new());
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&dir)
            && let Some((state, started)) = stat(pid)
            && !matches!(state, 'Z' | 'X')
        {
            found.push((pid, started, line.trim().to_owned()));
        }
    }
    found
}
