//! One query to every host, with its limit of hosts at once.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};

#[cfg(feature = "nats")]
use super::bus::BusClient;
use super::{
    carrier::Way,
    connection::{Answered, Route, Unanswered},
    failure::{ConnectFailure, Fault},
    operator::claimed_operator,
};
use crate::{
    event::Verdict,
    fleet::{Bus, ConnectError, Hosts},
    inventory::{HostEntry, HostName},
    protocol::{Greeting, Operator, RefusedKind, Request},
};

/// Why a host has no answer.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// It did not greet.
    Connect(ConnectFailure),
    /// It greeted, and did not answer; with the last line that the command wrote on stderr.
    Unanswered(Unanswered, Option<String>),
}

impl QueryError {
    /// Returns how a command that needs the host ends: refused if the host was reached and cannot
    /// be used, else unreachable.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Connect(failure) => match failure.fault {
                Fault::Skewed { .. } | Fault::OtherHost(_) => Verdict::Refused,
                _ => Verdict::Unreachable,
            },
            Self::Unanswered(Unanswered::Refused(_), _) => Verdict::Refused,
            Self::Unanswered(..) => Verdict::Unreachable,
        }
    }

    /// Tells whether the host has none of the named groups.
    fn is_no_group(&self) -> bool {
        matches!(
            self,
            Self::Unanswered(Unanswered::Refused(refused), _)
                if refused.kind == RefusedKind::NoGroup
        )
    }

    /// Returns why, in one line.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Connect(failure) => failure.why(),
            Self::Unanswered(why, Some(line)) => format!("{why}: {line}"),
            Self::Unanswered(why, None) => why.to_string(),
        }
    }
}

/// Connects to each host, sends it the query, if there is one, and gives what came of it to `each`.
/// At most [`Hosts::parallel`] hosts are worked on at once.
pub(crate) async fn for_each_host(
    hosts: &Hosts,
    entries: &[HostEntry],
    (operator, query): (&Operator, Option<&Request>),
    mut each: impl FnMut(usize, Result<(Greeting, Option<Answered>), QueryError>),
) {
    let ways = &Ways::of(hosts, operator).await;
    let asked = entries
        .iter()
        .enumerate()
        .map(|(index, host)| async move { (index, ask(ways, host, query).await) });
    let mut answers = stream::iter(asked).buffer_unordered(hosts.parallel);
    while let Some((index, answer)) = answers.next().await {
        each(index, answer);
    }
}

/// The answers of several hosts to one query about groups.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The answer of each host that has one of the groups, in the order of the hosts.
    pub(crate) answers: Vec<(HostName, Answered)>,
    /// Each host without an answer.
    pub(crate) absent: Vec<Absence>,
    /// A named group that no host has, where every host answered.
    pub(crate) no_group: Option<String>,
}

/// A host without an answer.
#[derive(Debug)]
pub(crate) struct Absence {
    pub(crate) host: HostName,
    /// How a command ends by it.
    pub(crate) verdict: Verdict,
    pub(crate) why: String,
}

impl Gathered {
    /// Returns how a command ends by the hosts without an answer, and the one that decides it.
    pub(crate) fn worst(&self) -> Option<&Absence> {
        worst(&self.absent)
    }
}

/// Returns the host without an answer that decides how a command ends: one that was not reached,
/// else the first.
pub(crate) fn worst(absent: &[Absence]) -> Option<&Absence> {
    let is_away = |absence: &&Absence| absence.verdict == Verdict::Unreachable;
    let away = absent.iter().find(is_away);
    away.or_else(|| absent.first())
}

/// Gives each row of an answer the name of its host. `host` returns its place in a row.
pub(crate) fn of_host<T>(
    rows: Vec<T>,
    name: &HostName,
    host: impl Fn(&mut T) -> &mut HostName,
) -> impl Iterator<Item = T> {
    rows.into_iter().map(move |mut row| {
        *host(&mut row) = name.clone();
        row
    })
}

/// Sends each host the query about `groups`, and gathers the answers. A host that has none of them
/// is not part of the answer, as long as another one has.
pub(crate) async fn gather_answers(
    hosts: &Hosts,
    entries: &[HostEntry],
    query: &Request,
    groups: &[String],
) -> Gathered {
    let operator = claimed_operator();
    let mut known = BTreeSet::new();
    let mut found: Vec<(usize, Result<Answered, QueryError>)> = Vec::new();
    for_each_host(hosts, entries, (&operator, Some(query)), |index, answer| {
        found.push((
            index,
            answer.map(|(greeting, answered)| {
                known.extend(greeting.groups.into_iter().map(|group| group.name));
                answered.unwrap_or_default()
            }),
        ));
    })
    .await;
    found.sort_by_key(|(index, _)| *index);
    let mut gathered = Gathered::default();
    for (index, answer) in found {
        let host = entries[index].name.clone();
        match answer {
            Ok(answered) => gathered.answers.push((host, answered)),
            Err(why) if why.is_no_group() => {}
            Err(why) => gathered.absent.push(Absence {
                host,
                verdict: why.verdict(),
                why: why.text(),
            }),
        }
    }
    if gathered.absent.is_empty() {
        let unknown = groups.iter().find(|group| !known.contains(*group));
        gathered.no_group = unknown.cloned();
    }
    gathered
}

async fn ask(
    ways: &Ways<'_>,
    host: &HostEntry,
    query: Option<&Request>,
) -> Result<(Greeting, Option<Answered>), QueryError> {
    let route = ways.to(host).map_err(ConnectFailure::new);
    let route = route.map_err(QueryError::Connect)?;
    let connected = route.connect().await.map_err(QueryError::Connect);
    let (mut connection, greeting) = connected?;
    let answered = match query {
        None => None,
        Some(query) => match connection.query(query).await {
            Ok(answered) => Some(answered),
            Err(why) => return Err(QueryError::Unanswered(why, connection.last_line())),
        },
    };
    connection.bye().await;
    Ok((greeting, answered))
}

/// The ways to the hosts of a fleet.
#[derive(Debug)]
pub(super) struct Ways<'a> {
    hosts: &'a Hosts,
    operator: &'a Operator,
    /// The way to each host without a command that connects.
    server: Way,
}

impl<'a> Ways<'a> {
    /// Connects to the server of the fleet, if it has one. Where that fails, each host that is
    /// reached over it is not reached for this reason.
    pub(super) async fn of(hosts: &'a Hosts, operator: &'a Operator) -> Self {
        let server = match &hosts.bus {
            Some(bus) => server_of(bus).await,
            None => Way::None("the fleet has no server".into()),
        };
        Self {
            hosts,
            operator,
            server,
        }
    }

    /// Returns the way to a host.
    ///
    /// # Errors
    /// Fails if the command that connects lacks a label of the host.
    pub(super) fn to(&self, host: &HostEntry) -> Result<Route, ConnectError> {
        let way = match self.hosts.connect_argv(host)? {
            Some(argv) => Way::Command(argv),
            None => self.server.clone(),
        };
        Ok(Route {
            name: host.name.clone(),
            way,
            silence: self.hosts.silence,
            operator: self.operator.clone(),
            key: None,
        })
    }
}

#[cfg(feature = "nats")]
async fn server_of(bus: &Bus) -> Way {
    match BusClient::connect(bus).await {
        Ok(client) => Way::Bus(client),
        Err(why) => Way::None(why.to_string().into()),
    }
}

#[cfg(not(feature = "nats"))]
async fn server_of(_: &Bus) -> Way {
    Way::None("this hello is built without the feature `nats`".into())
}
