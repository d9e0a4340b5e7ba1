//! Writes what is absent as `null`: an empty text, path or list. For `#[serde(serialize_with =
//! "..")]`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Paths;

/// A text; empty stands for none.
pub(crate) fn text<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    Some(text).filter(|text| !text.is_empty()).serialize(to)
}

/// Reads what [`text`] wrote, and what earlier versions did: an empty text.
pub(crate) fn text_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

/// A path, exactly; empty stands for none.
pub(crate) fn path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    Some(path.to_path_buf())
        .filter(|path: &PathBuf| !path.as_os_str().is_empty())
        .write(to)
}

/// A list; empty stands for none.
pub(crate) fn list<S: Serializer, T: Serialize>(list: &[T], to: S) -> Result<S::Ok, S::Error> {
    Some(list).filter(|list| !list.is_empty()).serialize(to)
}
