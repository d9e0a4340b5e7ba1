//! `hello watch`: observes the targets of groups, or their sources, and starts a run after each
//! change of their content.

use std::{pin::pin, sync::Arc};

use futures_util::Stream;
use sd_notify::NotifyState;

use self::{metrics::Metrics, watcher::Watcher};
use axum::Router;

use crate::{
    event::{Interrupts, Verdict},
    screen,
    serve::{Connections, Listener, ReloadSignals, notify},
};

mod attempt;
mod content;
mod discovery;
mod inotify;
mod keys;
mod lines;
mod metrics;
mod observed;
mod options;
mod page;
mod places;
mod repair;
mod schedule;
mod subject;
mod watcher;

pub(crate) use self::options::Options;

/// Watches until an interrupt, or for one run. Returns the exit code: that of the last run if it
/// was interrupted or is the only one, else 0.
pub(crate) async fn run(options: Options, signals: ReloadSignals, interrupts: Interrupts) -> u8 {
    let failed = |why: String| {
        screen::tell(&screen::failure(&why));
        Verdict::Failed.exit()
    };
    let metrics = Arc::new(Metrics::new());
    let connections = match &options.listen {
        None => None,
        Some(listen) => match Listener::bind(listen).await {
            Ok(listener) => {
                if let Ok(url) = listener.url() {
                    screen::tell(&screen::worded("Metrics", &format!("at {url}metrics")));
                }
                Some(Connections::new(listener, page::routes(metrics.clone())))
            }
            Err(why) => return failed(why.to_string()),
        },
    };
    let wakes = match signals.into_wakes() {
        Ok(wakes) => wakes,
        Err(why) => return failed(format!("cannot wait for SIGHUP: {why}")),
    };
    let watcher = Watcher::new(options, metrics, interrupts);
    let code = serve_while(connections, watch(watcher, wakes)).await;
    notify(&[NotifyState::Stopping]);
    code
}

async fn watch(mut watcher: Watcher, reloads: impl Stream<Item = ()>) -> u8 {
    let code = watcher.run(pin!(reloads)).await;
    watcher.close();
    code
}

/// Serves the metrics until `work` ends.
async fn serve_while(
    connections: Option<Connections<Router>>,
    work: impl Future<Output = u8>,
) -> u8 {
    let Some(connections) = connections else {
        return work.await;
    };
    let mut work = pin!(work);
    loop {
        tokio::select! {
            code = &mut work => return code,
            accepted = connections.next() => connections.serve(accepted),
        }
    }
}
