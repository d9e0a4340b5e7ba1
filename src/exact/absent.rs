//! Serializes an empty text, path or list as `null`. For `#[serde(serialize_with = "..")]`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Paths;

/// Serializes a text; an empty one is `null`.
pub(crate) fn text<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    Some(text).filter(|text| !text.is_empty()).serialize(to)
}

/// Deserializes what [`text`] serializes, and the empty text of earlier versions.
pub(crate) fn text_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

/// Serializes a path without loss; an empty one is `null`.
pub(crate) fn path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    Some(path.to_path_buf())
        .filter(|path: &PathBuf| !path.as_os_str().is_empty())
        .write(to)
}

/// Deserializes what [`path`] serializes.
pub(crate) fn path_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Ok(Option::<PathBuf>::read(from)?.unwrap_or_default())
}

/// Serializes a list; an empty one is `null`.
pub(crate) fn list<S: Serializer, T: Serialize>(list: &[T], to: S) -> Result<S::Ok, S::Error> {
    Some(list).filter(|list| !list.is_empty()).serialize(to)
}
