//! The shapes of values that are parsed after the file itself, for the schema of `fleet.toml`.
#![expect(
    dead_code,
    reason = "only the shape of these types counts; no value of them is made"
)]

use schemars::JsonSchema;

/// A text, or a list of texts.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum Words {
    /// One.
    Text(String),
    /// Several.
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// A place: an absolute path, or the start of one as the process shows it.
#[derive(JsonSchema)]
pub(super) struct Place(
    #[schemars(regex(pattern = r"^(/|\{(cwd|base|(arg|built|env|title):[^}]+)\}(/|$))"))] String,
);

/// A place, or a list of which the first that exists counts.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum Places {
    /// One.
    Text(Place),
    /// Several.
    List(#[schemars(length(min = 1))] Vec<Place>),
}

/// The URL of a key.
#[derive(JsonSchema)]
pub(super) struct KeyUrl(
    #[schemars(regex(pattern = r"^(https?|etcd\+https?|nats|exec)://.+"))]
    String,
);

/// A place, a list of which the first that exists counts, or a list of such lists; or a key.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum Targets {
    /// A key of a store.
    Key(KeyUrl),
    /// One place.
    Text(Place),
    /// Places of one target.
    List(#[schemars(length(min = 1))] Vec<Place>),
    /// Several targets.
    Lists(Vec<Places>),
}

/// A number of instances, or a range of numbers.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum CountText {
    /// Exactly this number.
    Number(usize),
    /// `3..`, `..5` or `3..5`.
    Text(#[schemars(regex(pattern = r"^([0-9]+|[0-9]*\.\.[0-9]*)$"))] String),
}

/// A number of instances, or a percentage of a group.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum ShareText {
    /// A number of instances.
    Number(usize),
    /// A number, or a percentage such as `25%` or `0.5%`.
    Text(#[schemars(regex(pattern = r"^[0-9]+((\.[0-9]{1,2})?%)?$"))] String),
}

/// One wave, or a list of them; each counts the waves before it.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum Waves {
    /// One.
    Wave(WaveText),
    /// Several.
    List(#[schemars(length(min = 1))] Vec<WaveText>),
}

/// One wave: a share of the instances, or hosts.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum WaveText {
    /// A number of instances, or a percentage of a group.
    Share(ShareText),
    /// All instances of some hosts.
    Hosts(WaveHosts),
}

/// The hosts of a wave.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaveHosts {
    /// The hosts, as `--on` selects them.
    on: String,
}

/// A host: a name, which may have ranges, or a table.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum HostText {
    /// A name.
    Name(String),
    /// `name`, `address`, and labels as further keys.
    Table(std::collections::BTreeMap<String, LabelText>),
}

/// The value of a label.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum LabelText {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Bool(bool),
}

/// A duration such as `500ms`, `5s` or `2m`, of at most an hour.
#[derive(JsonSchema)]
pub(super) struct DurationText(#[schemars(length(min = 2))] String);

/// The argv of a validator, or `"none"`.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum Validator {
    /// The program has none.
    Word(NoValidator),
    /// Program and arguments.
    Argv(Vec<String>),
}

/// The word for a program that has no validator.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum NoValidator {
    /// It has none.
    None,
}

/// Whether the program reloads on the signal.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(super) enum ReloadsWord {
    /// It does, or it does not.
    Bool(bool),
    /// It waits for the signal in `sigwait(3)`, where no handler can be seen.
    Word(Unchecked),
}

/// The word for a program whose handler cannot be seen.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unchecked {
    /// It is not checked.
    Unchecked,
}

/// A reload signal.
#[derive(JsonSchema)]
pub(super) enum SignalName {
    #[serde(rename = "SIGHUP")]
    Hup,
    #[serde(rename = "SIGUSR1")]
    Usr1,
    #[serde(rename = "SIGUSR2")]
    Usr2,
}

/// Returns the name of every kind.
pub(super) fn kind_names() -> Vec<&'static str> {
    super::KINDS.iter().map(|kind| kind.name).collect()
}
