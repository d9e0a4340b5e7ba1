//! One query to every host, with its limit of hosts at once.

use futures_util::{StreamExt, stream};

use super::{
    connection::{Answered, Connection, Unanswered, connect},
    failure::{ConnectFailure, Fault},
};
use crate::{
    event::Verdict,
    fleet::Hosts,
    inventory::HostEntry,
    protocol::{Greeting, Operator, Request},
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
    let asked = entries
        .iter()
        .enumerate()
        .map(|(index, host)| async move { (index, ask(hosts, host, operator, query).await) });
    let mut answers = stream::iter(asked).buffer_unordered(hosts.parallel);
    while let Some((index, answer)) = answers.next().await {
        each(index, answer);
    }
}

async fn ask(
    hosts: &Hosts,
    host: &HostEntry,
    operator: &Operator,
    query: Option<&Request>,
) -> Result<(Greeting, Option<Answered>), QueryError> {
    let (mut connection, greeting) = reach(hosts, host, operator)
        .await
        .map_err(QueryError::Connect)?;
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

/// Connects to a host, and checks that it is the one that is meant.
async fn reach(
    hosts: &Hosts,
    host: &HostEntry,
    operator: &Operator,
) -> Result<(Connection, Greeting), ConnectFailure> {
    let argv = hosts.connect_argv(host).map_err(ConnectFailure::new)?;
    let (connection, greeting) = connect(&argv, hosts.silence, operator).await?;
    match &greeting.host {
        Some(name) if *name != host.name => {
            Err(ConnectFailure::new(Fault::OtherHost(name.clone())))
        }
        _ => Ok((connection, greeting)),
    }
}
