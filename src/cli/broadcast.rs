//! `hello broadcast`: the arguments, and the checks that inspect no process.

use std::{path::Path, process::ExitCode, time::Duration};

use super::{
    fleet_file::FleetArg, hosts::RunHostsArgs, mistaken::this_command_with, refusal::UsageError,
    run::run_mutating, run_args::RunArgs, status::NO_HOSTS, values::OnFailure,
};
use crate::{
    broadcast,
    change::ChangeRequest,
    diagnostic,
    fleet::{self, Count, Fleet, Group, OnBadConfig, Share, Validation, WaveEnd},
    protocol::Validate,
    runs::Verb,
};

#[derive(Debug, clap::Args)]
pub(super) struct BroadcastArgs {
    /// Reload these groups, or the only one.
    ///
    /// Without a fleet file, name one kind: `hello kinds` lists them.
    groups: Vec<String>,
    /// Reload every group.
    #[arg(help_heading = "Instances", long, conflicts_with = "groups")]
    all: bool,
    #[command(flatten)]
    hosts: RunHostsArgs,
    #[command(flatten)]
    pub(super) fleet: FleetArg,
    /// Install this file or directory.
    ///
    /// A PATH without GROUP needs a run with one group. GROUP=PATH may be repeated. For a group
    /// with several targets, PATH is a directory with an entry for each. Without this option
    /// and --set, the run installs the group's `source`. Without a `source` it adopts the config
    /// that is on disk already.
    #[arg(
        help_heading = "Change",
        long,
        value_name = "[GROUP=]PATH",
        conflicts_with = "set"
    )]
    config: Vec<String>,
    /// Install one --config in several files although these differ now.
    ///
    /// It needs --config, or a group whose `source` is a key of a store.
    #[arg(help_heading = "Change", hide_short_help = true, long)]
    overwrite: bool,
    /// Remove entries that only the live directory has.
    ///
    /// Without the option these entries stay. It needs --config or a group with a `source`.
    #[arg(
        help_heading = "Change",
        hide_short_help = true,
        long,
        conflicts_with = "set"
    )]
    prune: bool,
    /// Set a key in each target's own content.
    ///
    /// KEY=@FILE reads the value from a file, so that `ps` does not show it. Comments and the order
    /// of keys stay. The option may be repeated.
    #[arg(help_heading = "Change", long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Require this many instances: 3, 3.., or 3..5.
    ///
    /// The number is that of each group. The option replaces `count` in fleet.toml.
    #[arg(
        help_heading = "Instances",
        long,
        value_name = "COUNT",
        value_parser = fleet::parse_count
    )]
    count: Option<Count>,
    /// Signal this many by the end of each wave.
    ///
    /// Numbers and percentages of each group; a last wave of 100% is implied. The option replaces
    /// `waves` of every group in fleet.toml. A group without a kind, or whose processes end
    /// on a bad
    /// config, still begins with one instance alone.
    #[arg(
        help_heading = "Rollout",
        long,
        value_name = "1,25%,..",
        value_delimiter = ','
    )]
    waves: Vec<Share>,
    /// Tolerate this many failed instances.
    ///
    /// Each is rolled back, and the run goes on. The limit counts for the whole run. The option
    /// replaces `max_failures` of every group in fleet.toml.
    #[arg(help_heading = "Rollout", long, value_name = "N|P%")]
    max_failures: Option<Share>,
    /// If more fail: revert, stop or continue.
    ///
    /// revert: roll every instance back. stop: roll back the failed instances, signal no other
    /// instance, and leave the rest as it is. continue: roll back the failed instances and go on.
    /// The option replaces `on_failure` of every group in fleet.toml.
    #[arg(
        help_heading = "Rollout",
        long,
        value_enum,
        value_name = "ACTION",
        hide_possible_values = true
    )]
    on_failure: Option<OnFailure>,
    /// Let a host roll back by itself if it hears nothing for this long.
    ///
    /// For a change that may cut this machine off from its hosts. The time counts on each host,
    /// from its first signal on, since the last sign of life of this command. Only the end of this
    /// run disarms it. It is at least the `lease` of the hosts' agents. The option needs
    /// [hosts].
    #[arg(
        help_heading = "Rollout",
        hide_short_help = true,
        long,
        value_name = "TIME",
        conflicts_with = "now",
        value_parser = fleet::parse_timer
    )]
    commit_confirmed: Option<Duration>,
    /// Skip bake, gate and rollback; needs --reason.
    ///
    /// For an incident. The option implies --include-unresponsive. After a failure the run
    /// signals no
    /// other instance and rolls nothing back by itself. Validation, pre-flight checks, lock and
    /// journal stay.
    #[arg(help_heading = "Rollout", long, conflicts_with = "on_failure")]
    now: bool,
    #[command(flatten)]
    run: RunArgs,
}

pub(super) fn broadcast(args: BroadcastArgs) -> ExitCode {
    match options(args) {
        Ok(options) => run_mutating(|interrupts| broadcast::run(options, interrupts)),
        Err(e) => e.fail(),
    }
}

/// Returns the checked options.
///
/// # Errors
/// Fails if options do not agree with each other or with the fleet.
pub(super) fn options(mut args: BroadcastArgs) -> Result<broadcast::Options, UsageError> {
    args.run.include_unresponsive |= args.now;
    // First of all, so that no report of an earlier run is left where this one fails.
    let shared = args.run.checked()?;
    let reason = shared.reason.as_deref().unwrap_or_default();
    if args.now && reason.trim().is_empty() {
        let repeated = || this_command_with(&["--reason", "WHY"]);
        let command = shared
            .reason
            .is_none()
            .then(repeated)
            .flatten()
            .unwrap_or_else(|| "hello broadcast .. --now --reason WHY".into());
        let action = "state why it cannot wait; the journal keeps it:";
        return Err(UsageError::with_hint(
            "--now needs a reason",
            action,
            command,
        ));
    }
    let names_groups = args.config.iter().any(|config| config.contains('='));
    let every = args.all || names_groups;
    let mut fleet = args.fleet.load_for_run(&args.groups, every)?;
    if fleet.hosts.is_none() && !args.hosts.is_empty() {
        return Err(NO_HOSTS.to_owned().into());
    }
    if fleet.hosts.is_none() && args.commit_confirmed.is_some() {
        let why = "--commit-confirmed needs [hosts]: without an agent the timer would end with \
                   this command";
        return Err(why.to_owned().into());
    }
    let change = change_request(&args.config, &args.set, args.prune, &mut fleet)?;
    let selection = broadcast::Selection {
        confirm_within: args.commit_confirmed,
        ..selection(args.hosts, args.groups, every, &fleet)
    };
    if args.overwrite {
        check_overwrite(&change, &fleet)?;
    }
    if shared.validate == Validate::Off {
        check_unvalidated(&fleet)?;
    }
    let overrides = Overrides {
        waves: args.waves,
        max_failures: args.max_failures,
        on_failure: args.on_failure.map(Into::into),
    };
    overrides.apply(&mut fleet)?;
    Ok(broadcast::Options {
        fleet,
        change,
        overwrite: args.overwrite,
        now: args.now,
        verb: Verb::Broadcast,
        replaces: Vec::new(),
        count: args.count,
        selection,
        shared,
    })
}

/// Returns the hosts and groups of a run over other machines.
fn selection(
    hosts: RunHostsArgs,
    groups: Vec<String>,
    every: bool,
    fleet: &Fleet,
) -> broadcast::Selection {
    let take_over = hosts.takes_over();
    let (on, except, max_unreachable) = hosts.parts();
    let groups = if groups.is_empty() {
        // The groups of the file; a file without any leaves the choice to each host.
        fleet
            .groups
            .iter()
            .map(|group| group.name.clone())
            .collect()
    } else {
        groups
    };
    broadcast::Selection {
        on,
        except,
        max_unreachable,
        take_over,
        confirm_within: None,
        groups,
        every,
    }
}

/// Returns the change of `--config`, `--set` and `--prune`. If `--config` names groups, all others
/// leave `fleet`.
///
/// # Errors
/// Fails if they do not agree with each other or with the fleet.
pub(super) fn change_request(
    configs: &[String],
    set: &[String],
    prune: bool,
    fleet: &mut Fleet,
) -> Result<ChangeRequest, UsageError> {
    let mut change = ChangeRequest {
        prune,
        ..ChangeRequest::default()
    };
    assign_configs(&mut change, configs, fleet)?;
    let pairs = set.iter().map(|pair| key_and_value(pair));
    change.set = pairs.collect::<Result<_, String>>()?;
    check_change(&change, fleet)?;
    Ok(change)
}

/// Sorts every `--config` by its group. If groups are named, all others leave `fleet`.
fn assign_configs(
    change: &mut ChangeRequest,
    configs: &[String],
    fleet: &mut Fleet,
) -> Result<(), String> {
    for config in configs {
        // A path may have a `=` in it, so only the name of a group counts as one.
        match config
            .split_once('=')
            .filter(|(name, _)| fleet.groups.iter().any(|group| group.name == *name))
        {
            Some((name, path)) if change.configs.insert(name.into(), path.into()).is_some() => {
                return Err(format!("--config {name}= is given twice"));
            }
            Some(_) => {}
            None if let Some(why) = unknown_group(config, fleet) => return Err(why),
            None if change.config.replace(config.into()).is_some() => {
                return Err("several --config: name the group of each, --config GROUP=PATH".into());
            }
            None => {}
        }
    }
    match (&change.config, change.configs.is_empty()) {
        (Some(_), false) => {
            Err("--config PATH and --config GROUP=PATH cannot be used together".into())
        }
        (Some(_), true) if fleet.groups.len() > 1 => {
            Err("--config PATH is for one group: name it, or use --config GROUP=PATH".into())
        }
        // Groups without a change are not in the run.
        (None, false) => {
            let has_config = |group: &Group| change.configs.contains_key(&group.name);
            fleet.groups.retain(has_config);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Returns an error for a `GROUP=PATH` of no group; none for a path with a `=` in it.
fn unknown_group(config: &str, fleet: &Fleet) -> Option<String> {
    let (name, _) = config.split_once('=')?;
    let is_path = name.contains('/') || Path::new(config).exists();
    let known = || fleet.groups.iter().map(|group| group.name.as_str());
    (!is_path).then(|| {
        let hint = diagnostic::suggest(name, known()).unwrap_or_default();
        format!("--config {config}: no group `{name}`; {hint}")
    })
}

fn key_and_value(pair: &str) -> Result<(String, String), String> {
    pair.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("--set {pair:?} is not KEY=VALUE"))
}

/// Refuses a change that a group of `fleet` cannot take.
fn check_change(change: &ChangeRequest, fleet: &Fleet) -> Result<(), String> {
    let has_config = change.config.is_some() || !change.configs.is_empty();
    let has_source = fleet.groups.iter().any(|group| group.source.is_some());
    if change.prune && !has_config && !has_source {
        return Err(
            "--prune removes entries when a directory is replaced: it needs --config, or a group \
             with a `source`"
                .into(),
        );
    }
    let changes = has_config || !change.set.is_empty();
    // The survey refuses every instance of a group that nothing reloads, and says why.
    let has_no_target = |group: &&Group| group.config.is_empty() && group.never_reloads().is_none();
    match fleet
        .groups
        .iter()
        .find(|group| changes && has_no_target(group))
    {
        Some(group) => Err(format!(
            "group `{}` has no `config` that could be changed",
            group.name
        )),
        None => Ok(()),
    }
}

/// Refuses `--overwrite` where no content is meant for several files.
fn check_overwrite(change: &ChangeRequest, fleet: &Fleet) -> Result<(), String> {
    let has_config = change.config.is_some() || !change.configs.is_empty();
    let sources = fleet.groups.iter().filter_map(|g| g.source.as_ref());
    if has_config || (change.set.is_empty() && sources.filter_map(|s| s.key()).next().is_some()) {
        return Ok(());
    }
    Err(
        "--overwrite is for one content of several files: it needs --config, or a group whose \
         `source` is a key of a store"
            .into(),
    )
}

/// Refuses a run without validation of a group whose processes end on a bad config.
fn check_unvalidated(fleet: &Fleet) -> Result<(), String> {
    let needs_validator = |group: &&Group| {
        group.on_bad_config == OnBadConfig::Dies && group.validation == Validation::Wanted
    };
    match fleet.groups.iter().find(needs_validator) {
        Some(group) => Err(format!(
            "--validate=off is not for group `{}`: a config that it cannot load ends its process, \
             so it is signalled only with a config that its validator passes",
            group.name
        )),
        None => Ok(()),
    }
}

/// The policy of the command line for every group of the run, instead of `fleet.toml`.
struct Overrides {
    waves: Vec<Share>,
    max_failures: Option<Share>,
    on_failure: Option<fleet::OnFailure>,
}

impl Overrides {
    /// Overwrites the rollout of every group.
    ///
    /// # Errors
    /// Fails if the waves do not grow.
    fn apply(self, fleet: &mut Fleet) -> Result<(), String> {
        let waves: Vec<WaveEnd> = self.waves.into_iter().map(WaveEnd::from).collect();
        fleet::check_waves(&waves).map_err(|why| format!("--waves: {why}"))?;
        let of_groups = fleet.groups.iter_mut().map(|group| &mut group.rollout);
        for rollout in of_groups.chain([&mut fleet.rollout]) {
            if !waves.is_empty() {
                rollout.waves.clone_from(&waves);
            }
            if let Some(max) = self.max_failures {
                rollout.max_failures = max;
                rollout.alone = false;
            }
            rollout.on_failure = self.on_failure.unwrap_or(rollout.on_failure);
        }
        Ok(())
    }
}
