//! What the operator wants changed: whole bytes, edits of keys, or what is on disk already.

use std::path::{Path, PathBuf};

use crate::config::{self, MAX_TARGET};

/// What the operator wants changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// The bytes of this file become the config.
    File(PathBuf),
    /// These keys of each target's own bytes are edited.
    Set(Vec<(String, String)>),
    /// What is on disk already is taken over.
    Adopt,
}

/// Edits keys of a TOML file; comments and order stay.
///
/// # Errors
/// When the bytes are no TOML, or the file of a `KEY=@FILE` cannot be read.
pub fn edit(bytes: &[u8], edits: &[(String, String)]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let mut doc: toml_edit::DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
    for (key, value) in edits {
        let value = match value.strip_prefix('@') {
            Some(path) => {
                String::from_utf8(config::read(Path::new(path), MAX_TARGET).map_err(|e| format!("{path}: {e}"))?).map_err(|e| format!("{path}: {e}"))?
            }
            None => value.clone(),
        };
        let old = doc.get(key).and_then(|i| i.as_value());
        // A value of the old one's type is taken as TOML; anything else is the literal text.
        let mut new = match value.parse::<toml_edit::Value>() {
            Ok(v) if old.is_none_or(|o| o.type_name() == v.type_name()) => v,
            _ => toml_edit::Value::from(value),
        };
        match old.map(|o| o.decor().clone()) {
            Some(decor) => *new.decor_mut() = decor,
            None => new.decor_mut().clear(),
        }
        doc[key] = toml_edit::Item::Value(new);
    }
    Ok(doc.to_string().into_bytes())
}
