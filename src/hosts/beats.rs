//! The signs of life of a coordinator: an agent keeps a session as long as it hears them.

use std::{rc::Rc, time::Duration};

use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use super::carrier::ToAgent;
use crate::protocol::{FrameWriter, Request};

/// The input of an agent. A frame is written whole before the next one.
pub(super) type Writer = Rc<Mutex<FrameWriter<ToAgent>>>;

/// A task that writes signs of life between the requests.
#[derive(Debug)]
pub(super) struct Beats(JoinHandle<()>);

impl Beats {
    /// Sends a beat of a run after each time `every`.
    pub(super) fn send(writer: Writer, run: String, every: Duration) -> Self {
        Self(spawn_local(async move {
            for b in 1.. {
                sleep(every).await;
                let beat = Request::Beat {
                    run: run.clone(),
                    b,
                };
                // The reader finds out that the connection broke.
                if writer.lock().await.write(&beat).await.is_err() {
                    return;
                }
            }
        }))
    }

    /// Ends the task, and waits until it holds the input no longer.
    pub(super) async fn end(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.0.abort();
    }
}
