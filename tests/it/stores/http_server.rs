//! An HTTP server with keys, and every fault that a server can have.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the server does with a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mode {
    /// It serves its keys, each with this text before its tag: `W/` makes it weak.
    Serves(&'static str),
    /// It serves its keys without a tag.
    NoTag,
    /// It answers these bytes, and closes the connection.
    Answers(Vec<u8>),
    /// It accepts, and never answers.
    Silent,
    /// It sends a whole answer byte by byte, without an end.
    Drips,
    /// It sends a chunked answer without an end.
    Endless,
}

#[derive(Default)]
struct Keys {
    last: u64,
    values: BTreeMap<String, (u64, Vec<u8>)>,
}

struct Shared {
    mode: Mutex<Mode>,
    keys: Mutex<Keys>,
    requests: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

/// A server that ends with its test process.
pub(super) struct HttpServer {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

impl HttpServer {
    pub(super) fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a server, with TLS if there is a config for that.
    pub(super) fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Serves("")),
            keys: Mutex::default(),
            requests: AtomicUsize::new(0),
            heads: Mutex::default(),
        });
        let server = Self {
            port,
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, tls) = (shared.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &shared),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(connection, stream), &shared);
                    }
                });
            }
        });
        server
    }

    pub(super) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Writes a key, without a request. Returns its tag.
    pub(super) fn write(&self, path: &str, value: &[u8]) -> String {
        let mut keys = self.shared.keys.lock().unwrap();
        keys.last += 1;
        let rev = keys.last;
        keys.values.insert(path.into(), (rev, value.into()));
        format!("\"{rev}\"")
    }

    /// Removes every key, as a store that lost its data.
    pub(super) fn clear(&self) {
        self.shared.keys.lock().unwrap().values.clear();
    }

    /// Returns the number of requests so far.
    pub(super) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Returns the head of every request so far, in lower case.
    pub(super) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Returns a whole answer.
pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn serve<S: Read + Write>(mut stream: S, shared: &Shared) {
    let Some((head, body)) = request(&mut stream) else {
        return;
    };
    shared.requests.fetch_add(1, Ordering::SeqCst);
    shared.heads.lock().unwrap().push(head.to_lowercase());
    let mode = shared.mode.lock().unwrap().clone();
    let bytes = match mode {
        Mode::Serves(weak) => of_keys(shared, &head, body, Some(weak)),
        Mode::NoTag => of_keys(shared, &head, body, None),
        Mode::Answers(bytes) => bytes,
        Mode::Silent => {
            // It ends when the client closes the connection.
            let _ = stream.read(&mut [0]);
            return;
        }
        Mode::Drips => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            let mut bytes = head.iter().copied().chain(std::iter::repeat(b'#'));
            while stream.write_all(&[bytes.next().unwrap()]).is_ok() && stream.flush().is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        Mode::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".to_vec(), vec![b'#'; 1 << 16], b"\r\n".to_vec()].concat();
            while stream.write_all(&chunk).is_ok() {}
            return;
        }
    };
    let _ = stream.write_all(&bytes);
    let _ = stream.flush();
}

/// Reads one request: its head, and its body.
fn request(stream: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1 << 16];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut body = bytes.split_off(end);
    let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
    while body.len() < length {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => body.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
    Some((head, body))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Answers a request for a key, by its conditions. `tag` is the text before the tag.
fn of_keys(shared: &Shared, head: &str, body: Vec<u8>, tag: Option<&str>) -> Vec<u8> {
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut keys = shared.keys.lock().unwrap();
    let now = keys.values.get(path).cloned();
    let quoted = |rev: u64| format!("{}\"{rev}\"", tag.unwrap_or_default());
    let tag_line = |rev: u64| match tag {
        Some(_) => format!("ETag: {}\r\n", quoted(rev)),
        None => String::new(),
    };
    if method == "GET" {
        return match now {
            None => answer("404 Not Found", "", b"no such key"),
            Some((rev, _)) if header(head, "if-none-match") == Some(&quoted(rev)) => {
                format!("HTTP/1.1 304 Not Modified\r\n{}\r\n", tag_line(rev)).into_bytes()
            }
            Some((rev, value)) => answer("200 OK", &tag_line(rev), &value),
        };
    }
    let is_expected = match (header(head, "if-match"), header(head, "if-none-match")) {
        (Some(expected), None) => now.is_some_and(|(rev, _)| quoted(rev) == expected),
        (None, Some("*")) => now.is_none(),
        _ => return answer("428 Precondition Required", "", b""),
    };
    if !is_expected {
        return answer("412 Precondition Failed", "", b"");
    }
    keys.last += 1;
    let rev = keys.last;
    keys.values.insert(path.into(), (rev, body));
    answer("201 Created", &tag_line(rev), b"")
}
