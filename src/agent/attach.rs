//! The socket of a session: a later connection to this host finds it, and takes the session over.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::{
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    sync::mpsc,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use crate::{
    protocol::{FrameReader, Request},
    runs,
};

/// The longest wait for the first frame of a connection to the socket. The agent on its other end
/// has it ready.
const FIRST_FRAME: Duration = Duration::from_secs(5);

/// The longest wait for an agent at the other end that takes nothing.
const TAKING: Duration = Duration::from_secs(60);

/// The connections that wait to be looked at.
const WAITING: usize = 8;

/// The folder of the sockets in the state directory.
const FOLDER: &str = "agents";

/// The end of the name of a socket: the run stands before it.
const ENDING: &str = ".sock";

/// The end of the name of a mark: another coordinator has ended the session of a run that had not
/// begun, so that no journal says it.
const TAKEN: &str = ".taken";

/// The time for which a mark is kept. A coordinator that has lost a session asks for it at once.
const KEPT: Duration = Duration::from_hours(24);

/// A connection to the socket of a session, and what it wants.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) request: Request,
    pub(super) reader: FrameReader<OwnedReadHalf>,
    pub(super) writer: SocketWriter,
}

/// Writes to a socket from a thread, whether or not another thread reads it without blocking.
#[derive(Debug)]
pub(super) struct SocketWriter(std::os::unix::net::UnixStream);

impl Write for SocketWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.0).write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SocketWriter {
    /// Waits until the other end takes more.
    fn wait(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        let limit = Timespec::try_from(TAKING).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The socket of a session. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    path: PathBuf,
    visitors: mpsc::Receiver<Visitor>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Opens the socket of a run. One that a killed agent has left is replaced.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written, or if a living session of the run is there.
    pub(super) async fn open(state: &Path, run: &str) -> io::Result<Self> {
        let folder = runs::private_folder(state, FOLDER)?;
        // Sockets of killed agents are removed.
        drop(sessions(state).await);
        remove_old_marks(&folder);
        let path = folder.join(format!("{run}{ENDING}"));
        let listener = bind(&folder, &path)?;
        let (sender, visitors) = mpsc::channel(WAITING);
        let task = spawn_local(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let sender = sender.clone();
                        spawn_local(async move {
                            if let Some(visitor) = receive(stream).await {
                                let _ = sender.send(visitor).await;
                            }
                        });
                    }
                    // No descriptor is free, which passes.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(Self {
            path,
            visitors,
            task,
        })
    }

    /// Waits for the next connection. It may be dropped while it waits.
    pub(super) async fn next(&mut self) -> Visitor {
        match self.visitors.recv().await {
            Some(visitor) => visitor,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns a path of a file in a folder that is short enough for the address of a socket (108
/// bytes, unix(7)), whatever the path of the folder. It holds as long as the folder is open.
fn short(folder: &Path, path: &Path) -> io::Result<(File, PathBuf)> {
    let open = File::open(folder)?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd").join(open.as_raw_fd().to_string());
    Ok((open, short.join(name)))
}

fn bind(folder: &Path, path: &Path) -> io::Result<UnixListener> {
    let (_open, short) = short(folder, path)?;
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let (_open, short) = short(folder, path)?;
    UnixStream::connect(short).await
}

/// Reads the first frame of a connection.
async fn receive(stream: UnixStream) -> Option<Visitor> {
    // Two descriptors of one socket: a thread writes to it, and this one reads.
    let stream = stream.into_std().ok()?;
    let writer = SocketWriter(stream.try_clone().ok()?);
    let (read, write) = UnixStream::from_std(stream).ok()?.into_split();
    write.forget();
    let mut reader = FrameReader::new(read);
    let request = timeout(FIRST_FRAME, reader.next::<Request>()).await;
    let request = request.ok()?.ok()??;
    Some(Visitor {
        request,
        reader,
        writer,
    })
}

fn mark_of(state: &Path, run: &str) -> PathBuf {
    state.join(FOLDER).join(format!(".{run}{TAKEN}"))
}

/// Notes that another coordinator has ended the session of a run.
pub(super) fn mark_taken_over(state: &Path, run: &str) {
    // Without the mark, the coordinator of the session may survey the host once more.
    let _ = File::create(mark_of(state, run));
}

/// Returns true if another coordinator has ended the session of a run that had not begun.
pub(super) fn was_taken_over(state: &Path, run: &str) -> bool {
    !run.contains('/') && mark_of(state, run).exists()
}

fn remove_old_marks(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().ends_with(TAKEN)) {
        let age = entry.metadata().and_then(|found| found.modified());
        let age = age.ok().and_then(|since| since.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Connects to the session of a run on this host; none if there is none.
pub(super) async fn session_of(state: &Path, run: &str) -> Option<UnixStream> {
    // The name of a run has no way out of the folder.
    if run.contains('/') {
        return None;
    }
    let path = state.join(FOLDER).join(format!("{run}{ENDING}"));
    connect(&path).await.ok()
}

/// Connects to every session on this host. Removes the sockets that killed agents have left.
pub(super) async fn sessions(state: &Path) -> Vec<UnixStream> {
    let mut sessions = Vec::new();
    let entries = std::fs::read_dir(state.join(FOLDER)).into_iter().flatten();
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_socket = path.to_string_lossy().ends_with(ENDING);
        match connect(&path).await {
            Ok(session) => sessions.push(session),
            Err(e) if is_socket && e.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => {}
        }
    }
    sessions
}
