//! The last bytes that a connection wrote on stderr.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use tokio::{io::AsyncReadExt, process::ChildStderr, task::JoinHandle};

/// The bytes of stderr that are kept. `ssh` explains itself in less than 1 KiB, and a changed host
/// key in 1 KiB.
const KEPT: usize = 8 << 10;

/// Reads stderr to its end, so that the command never waits for a reader.
#[derive(Debug)]
pub(super) struct Stderr {
    last: Rc<RefCell<VecDeque<u8>>>,
    reader: JoinHandle<()>,
}

impl Stderr {
    pub(super) fn collect(mut errors: ChildStderr) -> Self {
        let last = Rc::new(RefCell::new(VecDeque::new()));
        let kept = last.clone();
        let reader = tokio::task::spawn_local(async move {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = errors.read(&mut buffer).await {
                let mut kept = kept.borrow_mut();
                kept.extend(&buffer[..count]);
                let over = kept.len().saturating_sub(KEPT);
                kept.drain(..over);
            }
        });
        Self { last, reader }
    }

    /// Waits until all is read, after the command has ended.
    pub(super) async fn finish(&mut self) {
        let _ = (&mut self.reader).await;
    }

    /// Returns the lines that were kept, without empty ones.
    pub(super) fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.last.borrow().iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        // A process that the command left behind may hold the pipe open.
        self.reader.abort();
    }
}
