//! `hello hosts`: whether each host can be reached, and what repairs it if not. Touches nothing.

use std::path::Path;

use self::{answer::Answer, row::HostRow, table::print};
use std::path::PathBuf;

use crate::{
    event::Verdict,
    fleet::{Fleet, Hosts},
    hosts::{claimed_operator, for_each_host, select},
    inventory::{Expression, HostEntry},
    report::{Output, fail},
    screen,
};

mod answer;
mod row;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::answer::{no_rows, schema};

/// Checked options.
#[derive(Debug)]
pub(crate) struct Options {
    /// The fleet; its groups are those of the coordinator.
    pub fleet: Fleet,
    /// The hosts that are meant; all if it has no term.
    pub on: Expression,
    /// The hosts that are not meant.
    pub except: Expression,
    /// The state directory, which knows how hosts ended in a run.
    pub state: Option<PathBuf>,
    /// The format on stdout; `Screen` is a table.
    pub output: Output,
}

/// Connects to each host. Returns the exit code: 0 if all are ready, 11 if one is unreachable, 5 if
/// one is reached and cannot be used.
pub(crate) async fn run(options: Options) -> u8 {
    let Some(hosts) = &options.fleet.hosts else {
        let file = options
            .fleet
            .path
            .as_deref()
            .unwrap_or(Path::new("fleet.toml"));
        let why = format!(
            "no [hosts] in `{}`, so this machine is the whole fleet",
            file.display()
        );
        return fail(options.output, Verdict::Usage, &why, &[], no_rows());
    };
    let selected = match select(
        hosts,
        (&options.on, &options.except),
        options.state.as_deref(),
    )
    .await
    {
        Ok(selected) => selected,
        Err(why) => {
            let (verdict, why) = (why.verdict(), why.to_string());
            return fail(options.output, verdict, &why, &[], no_rows());
        }
    };
    let rows = ask(hosts, &selected).await;
    let answer = Answer::of(&rows);
    if options.output == Output::Screen {
        print(&rows);
        if let Some(reason) = answer.reason() {
            screen::tell(&screen::failure(reason));
        }
    } else {
        screen::data([serde_json::to_value(&answer).unwrap_or_default()]);
    }
    answer.exit()
}

/// Returns a row for each host, in their order.
async fn ask(hosts: &Hosts, selected: &[HostEntry]) -> Vec<HostRow> {
    let mut rows: Vec<Option<HostRow>> = selected.iter().map(|_| None).collect();
    let operator = claimed_operator();
    for_each_host(hosts, selected, (&operator, None), |index, answer| {
        let host = &selected[index];
        rows[index] = Some(match answer {
            Ok((greeting, _)) => HostRow::greeted(host, greeting),
            Err(why) => HostRow::failed(host, &why),
        });
    })
    .await;
    rows.into_iter().flatten().collect()
}
