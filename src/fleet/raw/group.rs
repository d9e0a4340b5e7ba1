//! A `[[group]]` as it is written, and the defaults of its kind.

use std::{ops::Range, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::matching::RawMatch;
use crate::{
    assertion::RawAssertion,
    diagnostic::{self, suggest},
    fleet::{
        KINDS, Listed, OnBadConfig, Repeated, Speaks, Unproven,
        rollout::RawRollout,
        shapes::{
            CountText, DurationText, Places, ReloadsWord, SignalName, Targets, Validator, Words,
            kind_names,
        },
        spanned::{SpannedError, spanned},
        validation::RawValidate,
    },
};

#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Group")]
pub(super) struct RawGroup {
    /// Its name, unique in the file. Default: the kind.
    #[schemars(with = "Option<String>")]
    pub(super) name: Option<Spanned<String>>,
    /// The named defaults to take; `hello kinds` lists them.
    #[schemars(with = "Option<String>", extend("enum" = kind_names()))]
    pub(super) kind: Option<Spanned<String>>,
    /// The processes of the group: everything in it must hold.
    #[schemars(with = "Option<RawMatch>")]
    pub(super) r#match: Option<Spanned<RawMatch>>,
    /// Matches that are not in the group.
    #[schemars(with = "Option<RawMatch>")]
    pub(super) exclude: Option<Spanned<RawMatch>>,
    /// The process that takes the signal for the others. Default: its parent does not match.
    #[schemars(with = "Option<RawMatch>")]
    pub(super) leader: Option<Spanned<RawMatch>>,
    /// A process that only works for a leader; one that has lost its leader is refused.
    #[schemars(with = "Option<RawMatch>")]
    pub(super) worker: Option<Spanned<RawMatch>>,
    /// Pid files of a leader: the first that exists names it.
    #[schemars(with = "Option<Places>")]
    pub(super) pid_file: Option<Spanned<Value>>,
    /// The users whose processes are matched: names, uids, or `{self}`. Default: the caller.
    #[schemars(with = "Option<Words>")]
    pub(super) user: Option<Spanned<Value>>,
    /// The number of instances: `3`, `"3.."`, `"..5"` or `"3..5"`. Default: `"1.."`.
    #[schemars(with = "Option<CountText>")]
    pub(super) count: Option<Spanned<Value>>,
    /// The hosts of the group, as `--on` selects them. Default: every host of `[hosts]`.
    #[schemars(with = "Option<String>")]
    pub(super) hosts: Option<Spanned<String>>,
    /// The number of instances on each host of the group, as `count`. Default: any number.
    #[schemars(with = "Option<CountText>")]
    pub(super) per_host: Option<Spanned<Value>>,
    /// The config: a place, a list of which the first that exists counts, or a list of lists; or
    /// the URL of a key.
    #[schemars(with = "Option<Targets>")]
    pub(super) config: Option<Spanned<Value>>,
    /// Where a config may be that another user's process names.
    #[schemars(with = "Option<Words>")]
    pub(super) config_under: Option<Spanned<Value>>,
    /// The short options of the program, as in `getopt(3)`: `-Df FILE` counts for `{arg:-f}`.
    pub(super) getopt: Option<String>,
    /// The value that counts of an option that is repeated. Default: `"last"`.
    pub(super) repeated: Option<Repeated>,
    /// The command line as the program rewrites it, with `{argv}`.
    #[schemars(with = "Option<String>")]
    pub(super) title: Option<Spanned<String>>,
    /// The directory of a relative path on the command line.
    #[schemars(with = "Option<Places>")]
    pub(super) base: Option<Spanned<Value>>,
    /// A command that prints the paths that are compiled in, for `{built:TEXT}`.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) built: Option<Vec<Spanned<String>>>,
    /// Directives of the config whose values name more of it.
    #[schemars(with = "Option<Words>")]
    pub(super) includes: Option<Spanned<Value>>,
    /// Arguments with which the program reads no file by default.
    #[schemars(with = "Option<Words>")]
    pub(super) no_default: Option<Spanned<Value>>,
    /// The place that another tool puts the new content at: a path with `{config}`, or the URL of
    /// a key.
    #[schemars(with = "Option<String>")]
    pub(super) source: Option<Spanned<String>>,
    /// Files that the signal does not make it read: a change of one is exit 10.
    #[schemars(with = "Option<Places>")]
    pub(super) needs_restart: Option<Spanned<Value>>,
    /// A command that prints the keys that are read only at the start.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) restart_keys: Option<Vec<Spanned<String>>>,
    /// A command that prints the value of `{key}` in `{candidate}`.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) restart_value: Option<Vec<Spanned<String>>>,
    /// A command that prints the keys that already wait for a restart.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) restart_pending: Option<Vec<Spanned<String>>>,
    /// A command that prints the keys of `{config}` that another place overrides.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) overridden_keys: Option<Vec<Spanned<String>>>,
    /// True if no line of the config may be shown. Default: if not every user may read it.
    pub(super) secret: Option<bool>,
    /// The validator, an argv without a shell; `"none"`: the program has none.
    #[schemars(with = "Option<Validator>")]
    pub(super) validate: Option<Spanned<RawValidate>>,
    /// The validator of a process that hides its arguments behind a title.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) validate_titled: Option<Vec<Spanned<String>>>,
    /// The reaction to a config that it cannot load. Default: `"keeps"`.
    pub(super) on_bad_config: Option<OnBadConfig>,
    /// A command that starts an instance again that died, on the old config.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) revive: Option<Vec<Spanned<String>>>,
    /// True if the program reloads on the signal. Without it, every instance is refused.
    #[schemars(with = "Option<ReloadsWord>")]
    pub(super) reloads: Option<Spanned<Value>>,
    /// Why no signal reloads the program: every instance is refused with it.
    #[schemars(with = "Option<String>")]
    pub(super) no_signal: Option<Spanned<String>>,
    /// What to do instead of a reload, beside `no_signal`.
    #[schemars(with = "Option<String>")]
    pub(super) instead: Option<Spanned<String>>,
    /// True if the signal makes the process execute the program at its path.
    pub(super) executes_itself: Option<bool>,
    /// Program names of children that a reload does not replace, and that serve no client.
    #[schemars(with = "Option<Words>")]
    pub(super) lasting: Option<Spanned<Value>>,
    /// The protocol of its report about itself. Default: `"none"`.
    pub(super) speaks: Option<Speaks>,
    /// The socket that is probed: `tcp:PORT`, `tcp:ADDRESS:PORT`, `unix:/PATH`, `{arg:--o}`.
    #[schemars(with = "Option<Words>")]
    pub(super) listen: Option<Spanned<Value>>,
    /// The reload signal. Default: `"SIGHUP"`.
    #[schemars(with = "Option<SignalName>")]
    pub(super) signal: Option<Spanned<String>>,
    /// A command that makes an instance reload, instead of a signal.
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) reload_by: Option<Spanned<Vec<Spanned<String>>>>,
    /// The time of an instance from its signal to its proof, up to `"1h"`. Default: `"5s"`.
    #[schemars(with = "Option<DurationText>")]
    pub(super) timeout: Option<Spanned<String>>,
    /// These processes instead of a scan; `match` must hold for each.
    #[schemars(with = "Option<Vec<Listed>>")]
    pub(super) instances: Option<Spanned<Vec<Listed>>>,
    /// How often in a row each source is probed. Default: 3, or 1 with `speaks = "hello"`.
    #[schemars(with = "Option<std::num::NonZeroU32>")]
    pub(super) samples: Option<Spanned<u32>>,
    /// The assertions that prove a reload; all must hold. `[]`: nothing can be seen.
    #[schemars(with = "Option<Vec<RawAssertion>>")]
    pub(super) confirm: Option<Vec<Spanned<RawAssertion>>>,
    /// Assertions that hold where the program kept its old config.
    #[schemars(with = "Option<Vec<RawAssertion>>")]
    pub(super) reject: Option<Vec<Spanned<RawAssertion>>>,
    /// A log, as in an assertion: its last lines since the signal stand under a failure.
    #[schemars(with = "Option<String>")]
    pub(super) log: Option<Spanned<String>>,
    /// The verdict on instances that nothing proves. Default: `"report"`.
    pub(super) unproven: Option<Unproven>,
    /// The rollout of this group.
    pub(super) rollout: Option<RawRollout>,
    /// The groups that must be proven before this one begins.
    #[schemars(with = "Option<Words>")]
    pub(super) after: Option<Spanned<Value>>,
    /// Holds `USER:PASSWORD`, for every assertion with `{listen}`.
    #[schemars(with = "Option<PathBuf>")]
    pub(super) auth_file: Option<Spanned<PathBuf>>,
    /// Holds a token, for every assertion with `{listen}`.
    #[schemars(with = "Option<PathBuf>")]
    pub(super) bearer_file: Option<Spanned<PathBuf>>,
    /// The PEM certificate that the client shows over https.
    #[schemars(with = "Option<PathBuf>")]
    pub(super) client_cert: Option<Spanned<PathBuf>>,
    /// The private key of `client_cert`.
    #[schemars(with = "Option<PathBuf>")]
    pub(super) client_key: Option<Spanned<PathBuf>>,
}

/// Returns the keys that a kind sets; none for a group without a kind.
pub(super) fn defaults(kind: Option<&Spanned<String>>) -> Result<RawGroup, SpannedError> {
    let Some(kind) = kind else {
        return Ok(RawGroup::default());
    };
    let name = kind.get_ref();
    let span = kind.span();
    match KINDS.iter().find(|known| known.name == name) {
        Some(known) => diagnostic::parse(known.keys().as_bytes())
            .map_err(|e| spanned(span, format!("kind `{name}`: {e}"))),
        None => Err(SpannedError {
            hint: suggest(name, KINDS.iter().map(|known| known.name)),
            ..spanned(span, format!("no kind `{name}`"))
        }),
    }
}

impl RawGroup {
    /// Returns the keys that are about hosts, each with its position.
    pub(super) fn host_keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        let own = [
            ("`hosts`", self.hosts.as_ref().map(Spanned::span)),
            ("`per_host`", self.per_host.as_ref().map(Spanned::span)),
        ];
        own.into_iter()
            .filter_map(|(key, span)| Some((key, span?)))
            .chain(self.rollout.iter().flat_map(RawRollout::host_keys))
    }

    /// Takes from `base`, the keys of its kind, each key that the group does not set itself.
    pub(super) fn over(self, base: Self) -> Self {
        // One of the two counts, and that of the group replaces either of its kind. What a kind
        // declares is about its own.
        let declared = if self.reload_by.is_none() {
            base.reloads
        } else {
            None
        };
        let (signal, reload_by) = match (self.signal, self.reload_by) {
            (None, None) => (base.signal, base.reload_by),
            own => own,
        };
        Self {
            r#match: self.r#match.or(base.r#match),
            exclude: self.exclude.or(base.exclude),
            leader: self.leader.or(base.leader),
            worker: self.worker.or(base.worker),
            pid_file: self.pid_file.or(base.pid_file),
            user: self.user.or(base.user),
            count: self.count.or(base.count),
            config: self.config.or(base.config),
            config_under: self.config_under.or(base.config_under),
            getopt: self.getopt.or(base.getopt),
            repeated: self.repeated.or(base.repeated),
            title: self.title.or(base.title),
            base: self.base.or(base.base),
            built: self.built.or(base.built),
            includes: self.includes.or(base.includes),
            no_default: self.no_default.or(base.no_default),
            source: self.source.or(base.source),
            needs_restart: self.needs_restart.or(base.needs_restart),
            restart_keys: self.restart_keys.or(base.restart_keys),
            restart_value: self.restart_value.or(base.restart_value),
            restart_pending: self.restart_pending.or(base.restart_pending),
            overridden_keys: self.overridden_keys.or(base.overridden_keys),
            secret: self.secret.or(base.secret),
            validate: self.validate.or(base.validate),
            validate_titled: self.validate_titled.or(base.validate_titled),
            on_bad_config: self.on_bad_config.or(base.on_bad_config),
            revive: self.revive.or(base.revive),
            reloads: self.reloads.or(declared),
            no_signal: self.no_signal.or(base.no_signal),
            instead: self.instead.or(base.instead),
            executes_itself: self.executes_itself.or(base.executes_itself),
            lasting: self.lasting.or(base.lasting),
            speaks: self.speaks.or(base.speaks),
            listen: self.listen.or(base.listen),
            reload_by,
            signal,
            timeout: self.timeout.or(base.timeout),
            samples: self.samples.or(base.samples),
            confirm: self.confirm.or(base.confirm),
            reject: self.reject.or(base.reject),
            log: self.log.or(base.log),
            ..self
        }
    }
}
