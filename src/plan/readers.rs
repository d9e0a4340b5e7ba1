//! Which instances read which targets.

use std::{collections::BTreeMap, path::PathBuf};

use crate::step::Member;

/// Instances by what they read.
pub(super) type Readers = BTreeMap<Vec<PathBuf>, Vec<Member>>;
