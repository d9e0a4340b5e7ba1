//! The direction of a step, a signal or a whole run.

use std::ops::Not;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The config that a step leads to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the new config.
    Forward,
    /// To the config from before the run: a rollback.
    Back,
}

impl Direction {
    /// Tells whether it is that of a rollback.
    #[must_use]
    pub fn is_back(self) -> bool {
        self == Self::Back
    }

    /// Returns `Back` if any of the directions is.
    #[must_use]
    pub fn any_back(mut directions: impl Iterator<Item = Self>) -> Self {
        if directions.any(Self::is_back) {
            Self::Back
        } else {
            Self::Forward
        }
    }

    /// Returns the number of interrupts that do not end a step: a rollback bears the first one.
    #[must_use]
    pub fn tolerated_interrupts(self) -> u8 {
        u8::from(self.is_back())
    }
}

impl Not for Direction {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}
