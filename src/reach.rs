//! `hello hosts`: whether each host can be reached, and what repairs it if not. Touches nothing.

use self::{answer::Answer, row::HostRow, table::print};
use crate::{
    event::Verdict,
    fleet::{Fleet, Hosts},
    hosts::{InventoryFault, claimed_operator, for_each_host, gather},
    inventory::{Expression, HostEntry, Unmatched},
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
    /// The format on stdout; `Screen` is a table.
    pub output: Output,
}

/// Why no host was asked.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no `[hosts]` in the fleet file, so this machine is the whole fleet")]
    NoHosts,
    #[error(transparent)]
    Inventory(#[from] InventoryFault),
    #[error(transparent)]
    Unmatched(#[from] Unmatched),
    #[error("the inventory has no host")]
    Empty,
}

impl Fault {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoHosts | Self::Inventory(InventoryFault::Duplicate(_)) => Verdict::Usage,
            Self::Inventory(_) => Verdict::Failed,
            Self::Unmatched(_) | Self::Empty => Verdict::NoMatch,
        }
    }
}

/// Connects to each host. Returns the exit code: 0 if all are ready, 11 if one is unreachable, 5 if
/// one is reached and cannot be used.
pub(crate) async fn run(options: Options) -> u8 {
    let (hosts, selected) = match select(&options).await {
        Ok(selected) => selected,
        Err(why) => {
            return fail(
                options.output,
                why.verdict(),
                &why.to_string(),
                &[],
                no_rows(),
            );
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

/// Returns the hosts that are meant, in the order of the inventory.
async fn select(options: &Options) -> Result<(&Hosts, Vec<HostEntry>), Fault> {
    let hosts = options.fleet.hosts.as_ref().ok_or(Fault::NoHosts)?;
    let all = gather(hosts).await?;
    if all.is_empty() {
        return Err(Fault::Empty);
    }
    let selected = crate::hosts::selected(all, &options.on, &options.except)?;
    Ok((hosts, selected))
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
