//! `[hosts]`: the machines of a fleet, and the command that connects to each.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, Table, Value};

use super::{
    store::{Store, access_of, address_fault},
    values::duration,
};
use crate::{
    fleet::{
        Bus, FleetName, Origin,
        count::parse_timer,
        hosts::{
            Agent, Connect, DEFAULT_CONFIRM_MAX, DEFAULT_LEASE, DEFAULT_PARALLEL, DEFAULT_SILENCE,
            Hosts, Via,
        },
        rollout::{Share, share},
        shapes::{DurationText, HostText, ShareText},
        spanned::{SpannedError, spanned, terms},
    },
    inventory::{HostEntry, HostName, MAX_HOSTS, check_address, check_distinct, expand, is_label},
};

/// The most hosts that are worked on at once: each costs three descriptors.
const MAX_PARALLEL: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Hosts")]
pub(super) struct RawHosts {
    /// The hosts: names, which may have ranges, or tables with labels.
    #[serde(default)]
    #[schemars(with = "Vec<HostText>")]
    list: Vec<Spanned<Value>>,
    /// The command that prints further hosts.
    #[schemars(with = "Option<Vec<String>>")]
    inventory: Option<Spanned<Vec<String>>>,
    /// The command that connects to `{address}`, `{name}` or a `{LABEL}`, and runs `hello agent`
    /// there. Default: ssh, and `sudo -n`.
    #[schemars(with = "Option<Vec<String>>")]
    connect: Option<Spanned<Vec<String>>>,
    /// Other commands that connect; the first whose `on` fits a host counts.
    #[serde(default)]
    #[schemars(with = "Vec<RawVia>")]
    via: Vec<Spanned<RawVia>>,
    /// The NATS server that reaches the hosts instead of a command: `"nats://HOST:PORT"`. A
    /// `[[store]]` with this `url` has its certificates and credentials.
    #[schemars(with = "Option<String>")]
    nats: Option<Spanned<String>>,
    /// The name of the fleet on that server. Default: `"default"`.
    #[schemars(with = "Option<String>")]
    fleet: Option<Spanned<String>>,
    /// The hosts that are worked on at once, up to 1000. Default: 64.
    #[schemars(with = "Option<usize>")]
    parallel: Option<Spanned<usize>>,
    /// The longest time in which a host sends nothing, from `"1s"` to `"1h"`. Default: `"20s"`.
    #[schemars(with = "Option<DurationText>")]
    silence: Option<Spanned<String>>,
    /// The hosts that a run may go without because they are not reached. Default: 0.
    #[schemars(with = "Option<ShareText>")]
    max_unreachable: Option<Spanned<Value>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Via")]
struct RawVia {
    /// The hosts, as `--on` selects them.
    #[schemars(with = "String")]
    on: Spanned<String>,
    /// The command that connects to them.
    #[schemars(with = "Vec<String>")]
    connect: Spanned<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Agent")]
pub(super) struct RawAgent {
    /// The name of this host. A coordinator that knows it by another name refuses it.
    #[schemars(with = "Option<String>")]
    name: Option<Spanned<String>>,
    /// Labels of this host, as its own file has them.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    labels: std::collections::BTreeMap<String, Spanned<String>>,
    /// How long the session of a run waits for its coordinator.
    #[schemars(with = "Option<DurationText>")]
    lease: Option<Spanned<String>>,
    /// The longest time of a commit-confirmed timer.
    #[schemars(with = "Option<String>")]
    confirm_max: Option<Spanned<String>>,
    /// The name of its fleet on the server of `hello agent --nats`. Default: `"default"`.
    #[schemars(with = "Option<String>")]
    fleet: Option<Spanned<String>>,
}

/// Resolves `[agent]`.
///
/// # Errors
/// Fails with the first fault, with its position.
pub(super) fn agent(raw: RawAgent) -> Result<Agent, SpannedError> {
    let name = raw
        .name
        .map(|name| HostName::new(name.get_ref()).map_err(|why| spanned(name.span(), why)));
    let mut labels = std::collections::BTreeMap::new();
    for (key, value) in raw.labels {
        if !is_label(&key, value.get_ref()) {
            return Err(spanned(value.span(), format!("`{key}` cannot be a label")));
        }
        labels.insert(key, value.into_inner());
    }
    let lease = raw.lease.map_or(Ok(DEFAULT_LEASE), lease)?;
    let confirm_max = raw.confirm_max.map_or(Ok(DEFAULT_CONFIRM_MAX), |raw| {
        parse_timer(raw.get_ref()).map_err(|why| spanned(raw.span(), why))
    })?;
    if confirm_max < lease {
        return Err(spanned(0..0, "`confirm_max` is shorter than `lease`"));
    }
    Ok(Agent {
        name: name.transpose()?,
        labels,
        lease,
        confirm_max,
        fleet: raw.fleet.map(fleet_name).transpose()?,
    })
}

fn fleet_name(raw: Spanned<String>) -> Result<FleetName, SpannedError> {
    FleetName::new(raw.get_ref()).map_err(|why| spanned(raw.span(), why))
}

/// Resolves `nats` and `fleet`.
fn bus(
    nats: Option<Spanned<String>>,
    fleet: Option<Spanned<String>>,
    stores: &[Store],
) -> Result<Option<Bus>, SpannedError> {
    let Some(url) = nats else {
        return match fleet {
            Some(fleet) => Err(spanned(fleet.span(), "`fleet` goes with `nats`")),
            None => Ok(None),
        };
    };
    let at = url.span();
    let url = url.into_inner();
    let fleet = fleet.map_or_else(|| Ok(FleetName::default()), fleet_name)?;
    Ok(Some(Bus {
        origin: Origin::of_nats(&url).map_err(|why| address_fault(at, why))?,
        access: access_of(&url, stores),
        fleet,
    }))
}

/// The leases that a host may have: with a shorter one it would end a session between two signs of
/// life, and for a longer one its locks would be held after an operator has left.
const LEASES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

fn lease(raw: Spanned<String>) -> Result<Duration, SpannedError> {
    let at = raw.span();
    let lease = duration(raw)?;
    // The greeting has whole seconds.
    if !LEASES.contains(&lease) || lease.subsec_nanos() > 0 {
        return Err(spanned(at, "a lease is from 1s to 1h, in whole seconds"));
    }
    Ok(lease)
}

/// Resolves `[hosts]`.
///
/// # Errors
/// Fails with the first fault, with its position.
pub(super) fn hosts(raw: Spanned<RawHosts>, stores: &[Store]) -> Result<Hosts, SpannedError> {
    let span = raw.span();
    let raw = raw.into_inner();
    let mut list = Vec::new();
    for entry in raw.list {
        let at = entry.span();
        list.extend(entries(entry)?);
        if list.len() > MAX_HOSTS {
            return Err(spanned(at, format!("more than {MAX_HOSTS} hosts")));
        }
    }
    check_distinct(&list).map_err(|why| spanned(span.clone(), why))?;
    let inventory = raw.inventory.map_or(Ok(Vec::new()), inventory)?;
    if list.is_empty() && inventory.is_empty() {
        return Err(spanned(span, "neither `list` nor `inventory`"));
    }
    if let (Some(connect), Some(_)) = (&raw.connect, &raw.nats) {
        let why = "`nats` reaches the hosts instead of `connect`";
        return Err(spanned(connect.span(), why)
            .hinted("remove one of them, or name the hosts of the command in [[hosts.via]]"));
    }
    Ok(Hosts {
        list,
        inventory,
        connect: raw
            .connect
            .map_or_else(|| Ok(Connect::default()), connect)?,
        bus: bus(raw.nats, raw.fleet, stores)?,
        via: raw.via.into_iter().map(via).collect::<Result<_, _>>()?,
        parallel: raw.parallel.map_or(Ok(DEFAULT_PARALLEL), parallel)?,
        silence: raw.silence.map_or(Ok(DEFAULT_SILENCE), silence)?,
        max_unreachable: raw
            .max_unreachable
            .map_or(Ok(Share::Count(0)), max_unreachable)?,
    })
}

/// Resolves one entry of the list: a name, or a table with labels.
fn entries(raw: Spanned<Value>) -> Result<Vec<HostEntry>, SpannedError> {
    let at = raw.span();
    match raw.into_inner() {
        Value::String(names) => expand(&names)
            .map_err(|why| spanned(at.clone(), why))?
            .iter()
            .map(|name| HostName::new(name).map(HostEntry::named))
            .collect::<Result<_, _>>()
            .map_err(|why| spanned(at, why)),
        Value::Table(table) => labelled(table, &at).map(|host| vec![host]),
        _ => Err(spanned(at, "a host is a name, or a table with `name`")),
    }
}

/// Resolves a table: `name`, `address`, and labels.
fn labelled(table: Table, at: &Range<usize>) -> Result<HostEntry, SpannedError> {
    let fault = |why: String| spanned(at.clone(), why);
    let name = table.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| fault("a host without `name`".into()))?;
    let name = HostName::new(name).map_err(|why| fault(why.to_string()))?;
    let mut host = HostEntry::named(name);
    for (key, value) in table {
        let text = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            _ => return Err(fault(format!("the label `{key}` is no text"))),
        };
        match key.as_str() {
            "name" => {}
            "address" => {
                check_address(&text).map_err(|why| fault(format!("address {text:?}: {why}")))?;
                host.address = text;
            }
            _ if is_label(&key, &text) => {
                host.labels.insert(key, text);
            }
            _ => return Err(fault(format!("`{key}` cannot be a label"))),
        }
    }
    Ok(host)
}

fn inventory(raw: Spanned<Vec<String>>) -> Result<Vec<String>, SpannedError> {
    match raw.get_ref().first() {
        Some(program) if !program.is_empty() => Ok(raw.into_inner()),
        _ => Err(spanned(raw.span(), "the inventory command has no program")),
    }
}

fn connect(raw: Spanned<Vec<String>>) -> Result<Connect, SpannedError> {
    let at = raw.span();
    Connect::new(raw.into_inner()).map_err(|why| spanned(at, why))
}

fn via(raw: Spanned<RawVia>) -> Result<Via, SpannedError> {
    let RawVia { on, connect: words } = raw.into_inner();
    let on = terms(&on)?;
    let connect = connect(words)?;
    Ok(Via { on, connect })
}

fn parallel(raw: Spanned<usize>) -> Result<usize, SpannedError> {
    match *raw.get_ref() {
        n @ 1..=MAX_PARALLEL => Ok(n),
        n => Err(spanned(
            raw.span(),
            format!("{n} is not between 1 and {MAX_PARALLEL}"),
        )),
    }
}

fn max_unreachable(raw: Spanned<Value>) -> Result<Share, SpannedError> {
    share(raw.get_ref()).map_err(|why| spanned(raw.span(), why))
}

fn silence(raw: Spanned<String>) -> Result<Duration, SpannedError> {
    // An agent sends a sign of life at least three times in this time, and a busy host is late.
    let least = Duration::from_secs(1);
    let at = raw.span();
    let silence = duration(raw)?;
    if silence < least {
        return Err(spanned(
            at,
            "less than 1s: a busy host would count as silent",
        ));
    }
    Ok(silence)
}
