//! What commands of an instance have noted. Whatever a validator writes to a file is discarded, so that it notes over a
//! connection.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Takes what is noted, one connection after the other in the order in which they were made.
pub(super) struct Notes {
    port: u16,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// What came over each connection.
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

    /// What a script of bash redirects to.
    pub(super) fn sink(&self) -> String {
        format!("/dev/tcp/127.0.0.1/{}", self.port)
    }

    /// All that was noted. Whatever notes must have ended, or have closed its connection.
    pub(super) fn text(&self) -> String {
        self.each().concat()
    }

    /// The same of each command.
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

    /// How many connections were made so far.
    pub(super) fn connections(&self) -> usize {
        self.noted.lock().unwrap().each.len()
    }

    pub(super) fn clear(&self) {
        self.settle();
        self.noted.lock().unwrap().each.clear();
    }

    /// Waits until every connection that was made before was read to its end.
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
