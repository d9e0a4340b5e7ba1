//! A `[[group]]` as it is written, and the defaults of its kind.

use std::path::PathBuf;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::matching::RawMatch;
use crate::{
    assertion::RawAssertion,
    diagnostic::{self, suggest},
    fleet::{
        KINDS, Listed, OnBadConfig, Repeated, Speaks, Unproven,
        rollout::RawRollout,
        spanned::{SpannedError, spanned},
        validation::RawValidate,
    },
};

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroup {
    pub(super) name: Option<Spanned<String>>,
    pub(super) kind: Option<Spanned<String>>,
    pub(super) r#match: Option<Spanned<RawMatch>>,
    pub(super) exclude: Option<Spanned<RawMatch>>,
    pub(super) leader: Option<Spanned<RawMatch>>,
    pub(super) worker: Option<Spanned<RawMatch>>,
    pub(super) pid_file: Option<Spanned<Value>>,
    pub(super) user: Option<Spanned<Value>>,
    pub(super) count: Option<Spanned<Value>>,
    pub(super) config: Option<Spanned<Value>>,
    pub(super) config_under: Option<Spanned<Value>>,
    pub(super) getopt: Option<String>,
    pub(super) repeated: Option<Repeated>,
    pub(super) title: Option<Spanned<String>>,
    pub(super) base: Option<Spanned<Value>>,
    pub(super) built: Option<Vec<Spanned<String>>>,
    pub(super) includes: Option<Spanned<Value>>,
    pub(super) no_default: Option<Spanned<Value>>,
    pub(super) source: Option<Spanned<String>>,
    pub(super) needs_restart: Option<Spanned<Value>>,
    pub(super) restart_keys: Option<Vec<Spanned<String>>>,
    pub(super) restart_value: Option<Vec<Spanned<String>>>,
    pub(super) restart_pending: Option<Vec<Spanned<String>>>,
    pub(super) overridden_keys: Option<Vec<Spanned<String>>>,
    pub(super) secret: Option<bool>,
    pub(super) validate: Option<Spanned<RawValidate>>,
    pub(super) validate_titled: Option<Vec<Spanned<String>>>,
    pub(super) on_bad_config: Option<OnBadConfig>,
    pub(super) revive: Option<Vec<Spanned<String>>>,
    pub(super) reloads: Option<Spanned<Value>>,
    pub(super) executes_itself: Option<bool>,
    pub(super) speaks: Option<Speaks>,
    pub(super) listen: Option<Spanned<Value>>,
    pub(super) signal: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) instances: Option<Spanned<Vec<Listed>>>,
    pub(super) samples: Option<Spanned<u32>>,
    pub(super) confirm: Option<Vec<Spanned<RawAssertion>>>,
    pub(super) reject: Option<Vec<Spanned<RawAssertion>>>,
    pub(super) unproven: Option<Unproven>,
    pub(super) rollout: Option<RawRollout>,
    pub(super) after: Option<Spanned<Value>>,
    pub(super) auth_file: Option<Spanned<PathBuf>>,
    pub(super) bearer_file: Option<Spanned<PathBuf>>,
    pub(super) client_cert: Option<Spanned<PathBuf>>,
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
        Some(known) => diagnostic::parse(known.text.as_bytes())
            .map_err(|e| spanned(span, format!("kind `{name}`: {e}"))),
        None => Err(SpannedError {
            hint: suggest(name, KINDS.iter().map(|known| known.name)),
            ..spanned(span, format!("no kind `{name}`"))
        }),
    }
}

impl RawGroup {
    /// Takes from `base`, the keys of its kind, each key that the group does not set itself.
    pub(super) fn over(self, base: Self) -> Self {
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
            reloads: self.reloads.or(base.reloads),
            executes_itself: self.executes_itself.or(base.executes_itself),
            speaks: self.speaks.or(base.speaks),
            listen: self.listen.or(base.listen),
            signal: self.signal.or(base.signal),
            timeout: self.timeout.or(base.timeout),
            samples: self.samples.or(base.samples),
            confirm: self.confirm.or(base.confirm),
            reject: self.reject.or(base.reject),
            ..self
        }
    }
}
