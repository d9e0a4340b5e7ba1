//! `--validate`.

use clap::ValueEnum;

use crate::execute;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Validate {
    Auto,
    Strict,
    Off,
}

impl From<Validate> for execute::Validate {
    fn from(how: Validate) -> Self {
        match how {
            Validate::Auto => Self::Auto,
            Validate::Strict => Self::Strict,
            Validate::Off => Self::Off,
        }
    }
}
