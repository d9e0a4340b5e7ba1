//! A proxy before a store of HTTP: it delays a write, or cuts it off before or after the store.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::LIMIT;

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Passes,
    /// So many writes reach the store, and their answers are lost.
    LosesAnswers(usize),
    /// So many writes are lost on the way to the store.
    LosesWrites(usize),
    /// The next write waits before the store until the mode is set again; later ones pass.
    HoldsWrite,
    /// The next write reaches the store. Its answer waits until the mode is set again.
    HoldsAnswer,
    /// The next write reaches the store and has no answer; no later request has one either.
    DiesAfterWrite,
    /// No request has an answer.
    Dead,
}

#[derive(Debug)]
struct Shared {
    /// The mode, and whether it is the one that holds a write.
    mode: Mutex<(Mode, bool)>,
    changed: Condvar,
    writes: AtomicUsize,
    store: u16,
}

/// The proxy. It ends with the test process.
pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts one before the store at this port.
    pub(super) fn start(store: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            mode: Mutex::new((Mode::Passes, false)),
            changed: Condvar::new(),
            writes: AtomicUsize::new(0),
            store,
        });
        let of_thread = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = of_thread.clone();
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { port, shared }
    }

    pub(super) fn set(&self, mode: Mode) {
        let holds = matches!(mode, Mode::HoldsWrite | Mode::HoldsAnswer);
        *self.shared.mode.lock().unwrap() = (mode, holds);
        self.shared.changed.notify_all();
    }

    /// Returns the number of writes that have come until now.
    pub(super) fn writes(&self) -> usize {
        self.shared.writes.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.set_read_timeout(Some(LIMIT))?;
        let request = read_request(&mut client)?;
        let is_write = is_write(&request);
        let mode = self.take(is_write);
        if is_write {
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
        match mode {
            Mode::Dead => return Ok(()),
            Mode::LosesWrites(_) => return Ok(()),
            Mode::HoldsWrite => {
                self.wait();
                // A client that has gone has not sent it.
                client.set_read_timeout(Some(Duration::from_millis(50)))?;
                if matches!(client.read(&mut [0]), Ok(0)) {
                    return Ok(());
                }
            }
            _ => {}
        }
        let mut store = TcpStream::connect(("127.0.0.1", self.store))?;
        store.set_read_timeout(Some(LIMIT))?;
        store.write_all(&request)?;
        let mut answer = Vec::new();
        let _ = store.read_to_end(&mut answer);
        match mode {
            Mode::LosesAnswers(_) | Mode::DiesAfterWrite => return Ok(()),
            Mode::HoldsAnswer => self.wait(),
            _ => {}
        }
        client.write_all(&answer)
    }

    /// Returns the mode for a request, and counts it.
    fn take(&self, is_write: bool) -> Mode {
        let mut state = self.mode.lock().unwrap();
        let mode = &mut state.0;
        let now = *mode;
        if now == Mode::Dead {
            return now;
        }
        if !is_write {
            return Mode::Passes;
        }
        *mode = match now {
            Mode::LosesAnswers(1) | Mode::LosesWrites(1) => Mode::Passes,
            Mode::LosesAnswers(n) => Mode::LosesAnswers(n - 1),
            Mode::LosesWrites(n) => Mode::LosesWrites(n - 1),
            Mode::HoldsWrite | Mode::HoldsAnswer => Mode::Passes,
            Mode::DiesAfterWrite => Mode::Dead,
            now => now,
        };
        now
    }

    /// Waits until the mode is set again.
    fn wait(&self) {
        let state = self.mode.lock().unwrap();
        drop(self.changed.wait_while(state, |(_, holds)| *holds));
    }
}

fn is_write(request: &[u8]) -> bool {
    request.starts_with(b"PUT ") || request.starts_with(b"POST /v3/kv/txn ")
}

fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = request.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.trim().parse().unwrap());
            if request.len() >= end + 4 + length {
                return Ok(request);
            }
        }
        match client.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => request.extend_from_slice(&piece[..n]),
        }
    }
}
