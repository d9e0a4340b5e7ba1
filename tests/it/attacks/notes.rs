//! Notes of commands about an instance. Files of a validator are discarded, so it sends its notes
//! over a connection.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Collects the notes of all connections in the order of their creation.
pub(super) struct Notes {
    port: u16,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// The text of each connection.
    each: Vec<Vec<u8>>,
    is_over: bool,
}

impl Notes {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, noted) = (
            listener.local_addr().unwrap().port(),
            Arc::new(Mutex::new(Noted::default())),
        );
        let into = Arc::clone(&noted);
        thread::spawn(move || {
            while !into.lock().unwrap().is_over {
                let Ok((stream, _)) = listener.accept() else {
                    return;
                };
                into.lock().unwrap().each.push(Vec::new());
                take(stream, &into);
            }
        });
        Self { port, noted }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path for a redirection in bash.
    pub(super) fn sink(&self) -> String {
        format!("/dev/tcp/127.0.0.1/{}", self.port)
    }

    /// Returns all notes. The writer must have ended or closed its connection.
    pub(super) fn text(&self) -> String {
        self.each().concat()
    }

    /// Returns the notes of each command.
    pub(super) fn each(&self) -> Vec<String> {
        self.settle();
        let noted = self.noted.lock().unwrap();
        noted
            .each
            .iter()
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }

    /// Returns the number of connections so far.
    pub(super) fn connections(&self) -> usize {
        self.noted.lock().unwrap().each.len()
    }

    pub(super) fn clear(&self) {
        self.settle();
        self.noted.lock().unwrap().each.clear();
    }

    /// Waits until every earlier connection was read to its end.
    fn settle(&self) {
        let mut last = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        last.set_read_timeout(Some(crate::support::RUN_LIMIT))
            .unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        let mut done = [0];
        last.read_exact(&mut done)
            .expect("a connection for notes is still open");
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.noted.lock().unwrap().is_over = true;
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn take(mut stream: TcpStream, into: &Mutex<Noted>) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        if let Some(last) = into.lock().unwrap().each.last_mut() {
            last.extend_from_slice(&piece[..length]);
        }
    }
    let _ = stream.write_all(b"\n");
}
