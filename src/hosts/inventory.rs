//! The hosts of a fleet: those of the file, and those that the inventory command prints.

use std::time::Duration;

use crate::{
    fleet::Hosts,
    host::exec::{self, RunError},
    inventory::{Duplicate, HostEntry, InventoryError, MAX_HOSTS, check_distinct, read},
    screen,
};

/// The longest time of the inventory command: the time that a cloud takes to list its machines.
const LIMIT: Duration = Duration::from_secs(30);

/// The most bytes of an inventory: 100,000 hosts with 600 bytes of variables each.
const MAX_INVENTORY: usize = 64 << 20;

/// The lines of stderr that an error shows.
const SHOWN: usize = 5;

/// Why the hosts of a fleet are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InventoryFault {
    /// The command gave no result.
    #[error("the inventory command failed: {0}")]
    Run(#[from] RunError),
    /// The command exited with another code than 0.
    #[error("the inventory command `{command}` exited with {code}{stderr}")]
    Exit {
        command: String,
        code: i32,
        /// The last lines of its stderr, each after `; `.
        stderr: String,
    },
    /// It printed too much.
    #[error("the inventory command printed more than 64 MiB")]
    Large,
    /// Its output cannot be used.
    #[error("the output of the inventory command cannot be used: {0}")]
    Output(#[from] InventoryError),
    /// Two hosts cannot be told apart. Exit 2.
    #[error("{0}")]
    Duplicate(#[from] Duplicate),
    /// There are too many.
    #[error("more than {MAX_HOSTS} hosts")]
    Many,
}

/// Returns every host of a fleet, in the order of the file and then of the inventory command.
///
/// # Errors
/// Fails if the command fails, or if two hosts cannot be told apart. An empty list is no error.
pub(crate) async fn gather(hosts: &Hosts) -> Result<Vec<HostEntry>, InventoryFault> {
    let mut all = hosts.list.clone();
    if !hosts.inventory.is_empty() {
        all.extend(printed(&hosts.inventory).await?);
    }
    if all.len() > MAX_HOSTS {
        return Err(InventoryFault::Many);
    }
    check_distinct(&all)?;
    Ok(all)
}

async fn printed(command: &[String]) -> Result<Vec<HostEntry>, InventoryFault> {
    let output = exec::fetch(command, Vec::new(), MAX_INVENTORY, LIMIT).await?;
    if output.code != 0 {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let last = &lines[lines.len().saturating_sub(SHOWN)..];
        return Err(InventoryFault::Exit {
            command: screen::line(&command.join(" ")).into_owned(),
            code: output.code,
            stderr: last.iter().map(|line| format!("; {line}")).collect(),
        });
    }
    if output.stdout.len() > MAX_INVENTORY {
        return Err(InventoryFault::Large);
    }
    Ok(read(&output.stdout)?.1)
}
