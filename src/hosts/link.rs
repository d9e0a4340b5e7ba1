//! The connection of a run to one host. When it breaks, another one takes the session over.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{
    task::{JoinError, JoinHandle, spawn_local},
    time::{sleep, timeout_at},
};

use super::connection::{Connection, Route, Unanswered};
use crate::protocol::{Greeting, Refused, RefusedKind, Request};

/// The pauses before the attempts to connect again; the last one stands for all others.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// A host is lost when nothing was heard of it for so many times the time after which it is silent.
const LOST: u32 = 3;

/// The session that a new connection goes on with.
#[derive(Debug)]
pub(super) struct Attached {
    connection: Connection,
    greeting: Greeting,
    /// The fencing token; none if there is no session, with the agent's answer.
    epoch: Result<u64, Refused>,
}

/// The way to the session of one host.
#[derive(Debug)]
enum Link {
    Connected(Box<Connection>),
    /// A task connects again, until it succeeds.
    Broken(JoinHandle<Attached>),
    /// The task is over, and its result was taken.
    Gone,
}

/// The connection of a run to one host.
#[derive(Debug)]
pub(super) struct SessionLink {
    route: Rc<Route>,
    run: Rc<str>,
    lease: Duration,
    link: Link,
    /// The last time that something was heard of the host.
    heard: Instant,
    /// Why the last attempt to connect failed.
    failure: Rc<RefCell<Option<String>>>,
}

/// A session is there again.
#[derive(Debug)]
pub(super) enum Again {
    /// The same session; with its fencing token.
    Session(u64),
    /// There is none.
    None(NoSession),
}

/// A new agent that has no session of the run.
#[derive(Debug)]
pub(super) struct NoSession {
    /// Its reason.
    pub(super) why: String,
    pub(super) run: RunThere,
}

/// A run without a session, as the journal of its host has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunThere {
    /// It has not begun.
    None,
    /// It is open.
    Open,
    /// It has recorded its end.
    Finished,
    /// Another run, or another coordinator, has taken its place.
    Replaced,
}

impl SessionLink {
    pub(super) fn new(
        route: Route,
        mut connection: Connection,
        greeting: &Greeting,
        run: &str,
    ) -> Self {
        let lease = Duration::from_secs(greeting.limits.lease_s);
        connection.beat(run, lease);
        Self {
            route: Rc::new(route),
            run: run.into(),
            lease,
            link: Link::Connected(Box::new(connection)),
            heard: Instant::now(),
            failure: Rc::default(),
        }
    }

    /// Returns the connection; none while it is broken.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.link {
            Link::Connected(connection) => Some(connection),
            Link::Broken(_) | Link::Gone => None,
        }
    }

    /// Goes on with the session of another run, which the connection has begun.
    pub(super) fn renew(&mut self, run: &str) {
        self.run = run.into();
        if let Link::Connected(connection) = &mut self.link {
            connection.beat(run, self.lease);
        }
    }

    /// Returns the moment from which the host is lost.
    pub(super) fn lost_at(&self) -> Instant {
        let heard = match &self.link {
            Link::Connected(connection) => connection.heard(),
            Link::Broken(_) | Link::Gone => self.heard,
        };
        heard + self.route.silence * LOST
    }

    /// Leaves a connection that broke, and begins to connect again. Returns why it broke, with the
    /// last line of the command.
    pub(super) fn break_off(&mut self, why: &Unanswered) -> String {
        let link = std::mem::replace(&mut self.link, Link::Gone);
        let line = match link {
            Link::Connected(connection) => {
                // Nothing reads while a gate runs, so the host may not have been silent for so
                // long: there is time for an attempt in any case.
                let tried_for = self.route.silence * (LOST - 1);
                let least = Instant::now().checked_sub(tried_for);
                self.heard =
                    least.map_or(connection.heard(), |least| connection.heard().max(least));
                let line = connection.last_line();
                connection.leave();
                line
            }
            broken => {
                self.link = broken;
                return why.to_string();
            }
        };
        let text = line.map_or(why.to_string(), |line| format!("{why}: {line}"));
        self.failure.replace(Some(text.clone()));
        let (route, run) = (self.route.clone(), self.run.clone());
        let task = connect_again(route, run, self.lease, self.failure.clone());
        self.link = Link::Broken(spawn_local(task));
        text
    }

    /// Waits for the next connection, until the host is lost. Returns none then. It may be dropped
    /// while it waits.
    pub(super) async fn again(&mut self) -> Option<Again> {
        let lost_at = self.lost_at();
        let Link::Broken(task) = &mut self.link else {
            return None;
        };
        let attached = timeout_at(lost_at.into(), task).await.ok()?;
        self.take(attached)
    }

    /// Returns what has come of the attempts to connect again; none as long as they go on.
    pub(super) fn again_now(&mut self) -> Option<Again> {
        let Link::Broken(task) = &mut self.link else {
            return None;
        };
        let attached = task.now_or_never()?;
        self.take(attached)
    }

    fn take(&mut self, attached: Result<Attached, JoinError>) -> Option<Again> {
        // A task is not waited for again once it is over, however it has ended.
        self.link = Link::Gone;
        let Attached {
            connection,
            greeting,
            epoch,
        } = attached.ok()?;
        self.lease = Duration::from_secs(greeting.limits.lease_s);
        self.link = Link::Connected(Box::new(connection));
        Some(match epoch {
            Ok(epoch) => Again::Session(epoch),
            Err(refused) => {
                let mut open = greeting.open.iter().filter(|open| !open.running);
                let is_open = open.any(|open| open.run == *self.run);
                let run = match refused.kind {
                    RefusedKind::Finished => RunThere::Finished,
                    RefusedKind::OtherEnd => RunThere::Replaced,
                    _ if is_open => RunThere::Open,
                    _ => RunThere::None,
                };
                let why = refused.text;
                Again::None(NoSession { why, run })
            }
        })
    }

    /// Returns why the host is lost.
    pub(super) fn why_lost(&self) -> String {
        let silent = (self.route.silence * LOST).as_secs();
        match &*self.failure.borrow() {
            Some(why) => format!("nothing heard for {silent}s: {why}"),
            None => format!("nothing heard for {silent}s"),
        }
    }

    /// Ends the conversation.
    pub(super) async fn bye(mut self) {
        let link = std::mem::replace(&mut self.link, Link::Gone);
        match link {
            Link::Connected(connection) => connection.bye().await,
            Link::Broken(task) => task.abort(),
            Link::Gone => {}
        }
    }
}

/// Connects again and takes the session over. Ends once that is done, or once the agent says that
/// there is no such session.
async fn connect_again(
    route: Rc<Route>,
    run: Rc<str>,
    lease: Duration,
    failure: Rc<RefCell<Option<String>>>,
) -> Attached {
    let mut pauses = PAUSES.iter().copied().chain(std::iter::repeat(PAUSES[4]));
    loop {
        let pause = pauses.next().unwrap_or(PAUSES[4]);
        sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        let (mut connection, greeting) = match route.connect().await {
            Ok(connected) => connected,
            Err(why) => {
                failure.replace(Some(why.why()));
                continue;
            }
        };
        let attach = Request::Attach {
            run: run.to_string(),
            key: route.key.clone().unwrap_or_default(),
        };
        let epoch = match connection.query(&attach).await {
            Ok(answer) => answer.result.get("epoch").and_then(|epoch| epoch.as_u64()),
            Err(Unanswered::Refused(refused)) if is_over(refused.kind) => {
                return Attached {
                    connection,
                    greeting,
                    epoch: Err(refused),
                };
            }
            Err(why) => {
                failure.replace(Some(why.to_string()));
                connection.leave();
                continue;
            }
        };
        let Some(epoch) = epoch else {
            failure.replace(Some("its agent answered something else".into()));
            connection.leave();
            continue;
        };
        connection.beat(&run, lease);
        return Attached {
            connection,
            greeting,
            epoch: Ok(epoch),
        };
    }
}

/// Tells whether an agent refuses to attach because there is no session any more.
fn is_over(kind: RefusedKind) -> bool {
    let kinds = [
        RefusedKind::Ended,
        RefusedKind::Finished,
        RefusedKind::OtherEnd,
    ];
    kinds.contains(&kind)
}

impl Drop for SessionLink {
    fn drop(&mut self) {
        if let Link::Broken(task) = &self.link {
            task.abort();
        }
    }
}
