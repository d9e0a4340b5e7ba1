//! An instance that a test probes: this process, with an endpoint that answers, or does not.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    assertion::{Assertion, Expectation, Extract, Source},
    event::Instance,
    fleet::Fleet,
    host::net::http::own,
    kernel::Stat,
    step::PlannedInstance,
};

/// Returns this process as an instance whose endpoint refuses every connection, and an assertion
/// over the body that the endpoint would give.
pub(crate) fn silent(expectation: Expectation) -> (PlannedInstance, Assertion) {
    let pid = i32::try_from(std::process::id()).unwrap();
    let mut group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
    let assertion = Assertion {
        source: Source::Http(own("/")),
        read: Extract::Body,
        expectation,
        any: None,
    };
    group.confirm = vec![assertion.clone()];
    let mut instance = Instance::new("web", pid, Stat::of(pid).unwrap().started);
    instance.exe = std::env::current_exe().unwrap();
    // Port 0 is none.
    instance.endpoint = "http://127.0.0.1:0/".into();
    let mut member = PlannedInstance::new(instance, Arc::new(group), Vec::new());
    member.timeout = Duration::from_millis(50);
    (member, assertion)
}

/// An endpoint that answers the same to every request.
pub(crate) struct Answers {
    pub(crate) url: String,
    thread: Option<JoinHandle<()>>,
}

/// Returns an endpoint that answers `body` to every request.
pub(crate) fn asked(body: &'static str) -> Answers {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            // The end of the test connects and sends nothing.
            if stream.read(&mut request).unwrap() == 0 {
                return;
            }
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    Answers {
        url,
        thread: Some(thread),
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let address = self.url.trim_start_matches("http://").trim_end_matches('/');
        drop(TcpStream::connect(address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
