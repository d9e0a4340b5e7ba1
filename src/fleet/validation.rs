//! The validator of a group: a command, or the declaration that its program has none.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use toml::Spanned;

use super::{
    OnBadConfig, Validation,
    spanned::{SpannedError, argv, spanned},
};

/// The word for a program that has no validator.
const NONE: &str = "none";

/// `validate` as it is written.
#[derive(Debug, Clone)]
pub(super) enum RawValidate {
    Word(String),
    Argv(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for RawValidate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

/// Keeps the position of each argument, which an untagged enum of serde loses.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = RawValidate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of arguments, or \"{NONE}\"")
    }

    fn visit_str<E>(self, word: &str) -> Result<RawValidate, E> {
        Ok(RawValidate::Word(word.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<RawValidate, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(all)).map(RawValidate::Argv)
    }
}

/// Returns the validator's argv, and whether the group requires one. If a bad config ends the
/// program and there is no validator, the group must be able to start it again.
pub(super) fn validation(
    raw: Option<Spanned<RawValidate>>,
    on_bad: OnBadConfig,
    revive: &[String],
) -> Result<(Vec<String>, Validation), SpannedError> {
    let Some(raw) = raw else {
        return Ok((Vec::new(), Validation::Wanted));
    };
    let at = raw.span();
    match raw.into_inner() {
        RawValidate::Argv(words) => Ok((argv(Some(words), &[])?, Validation::Wanted)),
        RawValidate::Word(word) if word != NONE => Err(spanned(
            at,
            format!("validate = {word:?} is not a list of arguments"),
        )
        .hinted(format!(
            "`validate = [\"{word}\"]`, or \"{NONE}\" for a program that has no validator"
        ))),
        RawValidate::Word(_) if on_bad == OnBadConfig::Dies && revive.is_empty() => {
            let why = format!(
                "a config that it cannot load ends the program, and with `validate = \"{NONE}\"` \
                 nothing detects that before"
            );
            Err(spanned(at, why).hinted("add the command that starts it again: `revive = [argv]`"))
        }
        RawValidate::Word(_) => Ok((Vec::new(), Validation::Waived)),
    }
}
