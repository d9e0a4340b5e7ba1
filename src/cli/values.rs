//! The values of options that are one of a few words, each with the enum that it stands for.

use clap::ValueEnum;

use crate::{fleet, protocol, report, serve};

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text on stderr, nothing on stdout.
    Screen,
    /// One JSON object on stdout at the end.
    Json,
    /// One JSON object per event on stdout, then the same object.
    Jsonl,
}

/// The option that chooses the form of the output.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArg {
    /// Print on stdout: json or jsonl.
    ///
    /// screen prints text on stderr and nothing on stdout. json prints one object at the end. jsonl
    /// prints the events as they happen, and then the same object.
    #[arg(
        help_heading = "Output",
        short,
        long,
        value_enum,
        value_name = "FORM",
        hide_possible_values = true,
        default_value_t = Output::Screen
    )]
    output: Output,
}

impl OutputArg {
    pub(super) fn form(&self) -> report::Output {
        match self.output {
            Output::Screen => report::Output::Screen,
            Output::Json => report::Output::Json,
            Output::Jsonl => report::Output::Jsonl,
        }
    }
}

/// `--validate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Validate {
    /// Run the validators that are known.
    Auto,
    /// Require that every instance has a validator and passes it.
    Strict,
    /// Run no validator.
    Off,
}

impl From<Validate> for protocol::Validate {
    fn from(validate: Validate) -> Self {
        match validate {
            Validate::Auto => Self::Auto,
            Validate::Strict => Self::Strict,
            Validate::Off => Self::Off,
        }
    }
}

/// `--on-failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnFailure {
    /// Roll every instance back.
    Revert,
    /// Roll failed instances back and signal no more.
    Stop,
    /// Roll failed instances back and go on.
    Continue,
}

impl From<OnFailure> for fleet::OnFailure {
    fn from(on_failure: OnFailure) -> Self {
        match on_failure {
            OnFailure::Revert => Self::Revert,
            OnFailure::Stop => Self::Stop,
            OnFailure::Continue => Self::Continue,
        }
    }
}

/// `--proof` of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Proof {
    /// Peers on this machine.
    Loopback,
    /// All peers.
    Any,
}

impl From<Proof> for serve::Proof {
    fn from(proof: Proof) -> Self {
        match proof {
            Proof::Loopback => Self::Loopback,
            Proof::Any => Self::Any,
        }
    }
}
