//! Paths in JSON without loss. A path is bytes, and JSON is text. A path in UTF-8 is a string, any
//! other `{"bytes": "HEX"}`. For `#[serde(with = "crate::exact")]`.

use std::{
    borrow::{Borrow, Cow},
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) mod absent;

/// A path: text, or its bytes in hex if it is not UTF-8.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Path")]
pub(crate) enum Shape<'a> {
    /// A path in UTF-8.
    Text(Cow<'a, str>),
    /// Any other path.
    Bytes {
        /// Two digits for each byte.
        #[schemars(regex(pattern = "^([0-9a-f]{2})*$"))]
        bytes: String,
    },
}

impl<'a> Shape<'a> {
    fn of(path: &'a Path) -> Self {
        path.to_str().map_or_else(
            || Self::Bytes { bytes: hex(path) },
            |text| Self::Text(text.into()),
        )
    }

    /// Returns the path; none if the bytes are not hex digits.
    fn path(self) -> Option<PathBuf> {
        match self {
            Self::Text(text) => Some(text.into_owned().into()),
            Self::Bytes { bytes } => unhex(&bytes),
        }
    }
}

fn hex(path: &Path) -> String {
    path.as_os_str()
        .as_bytes()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<PathBuf> {
    let digit = |c: &u8| {
        char::from(*c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    Some(OsString::from_vec(bytes?).into())
}

/// A path, or several of them.
pub(crate) trait Paths: Sized {
    /// Serializes the paths.
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
    /// Deserializes the paths.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

fn path_of<E: serde::de::Error>(shape: Shape<'_>) -> Result<PathBuf, E> {
    shape
        .path()
        .ok_or_else(|| E::custom("the bytes of a path are not hex digits"))
}

impl Paths for PathBuf {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Shape::of(self).serialize(to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        path_of(Shape::deserialize(from)?)
    }
}

impl Paths for Option<PathBuf> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_deref().map(Shape::of).serialize(to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Option::<Shape<'_>>::deserialize(from)?
            .map(path_of)
            .transpose()
    }
}

impl Paths for Vec<PathBuf> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(|path| Shape::of(path)))
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<Shape<'_>>::deserialize(from)?
            .into_iter()
            .map(path_of)
            .collect()
    }
}

/// A path, or other bytes that are text as a rule, as a JSON value.
pub(crate) fn value(bytes: &[u8]) -> serde_json::Value {
    let path = Path::new(OsStr::from_bytes(bytes));
    serde_json::to_value(Shape::of(path)).unwrap_or_default()
}

/// Serializes paths, for serde.
pub(crate) fn serialize<T: Paths, S: Serializer>(paths: &T, to: S) -> Result<S::Ok, S::Error> {
    paths.write(to)
}

/// Deserializes paths, for serde.
pub(crate) fn deserialize<'de, T: Paths, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::read(from)
}

/// An absolute path as the key of a JSON object: `bytes:HEX` if it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) PathBuf);

/// The start of the key of a path that is not UTF-8. No absolute path starts like this.
const BYTES: &str = "bytes:";

impl Borrow<Path> for Key {
    fn borrow(&self) -> &Path {
        &self.0
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => to.serialize_str(text),
            None => to.serialize_str(&format!("{BYTES}{}", hex(&self.0))),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.strip_prefix(BYTES) {
            Some(bytes) => path_of(Shape::Bytes {
                bytes: bytes.to_owned(),
            })
            .map(Self),
            None => Ok(Self(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Record {
        #[serde(with = "crate::exact")]
        single: PathBuf,
        #[serde(with = "crate::exact")]
        optional: Option<PathBuf>,
        #[serde(with = "crate::exact")]
        list: Vec<PathBuf>,
        keyed: BTreeMap<Key, u8>,
    }

    fn path() -> impl Strategy<Value = PathBuf> {
        proptest::collection::vec(any::<u8>(), 0..12)
            .prop_map(|bytes| PathBuf::from(OsString::from_vec([b"/".to_vec(), bytes].concat())))
    }

    proptest! {
        #[test]
        fn paths_survive_json_unchanged(
            single in path(),
            optional in proptest::option::of(path()),
            list in proptest::collection::vec(path(), 0..3),
        ) {
            let keyed = list.iter().cloned().map(|path| (Key(path), 1)).collect();
            let record = Record {
                single,
                optional,
                list,
                keyed,
            };
            let json = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(
                serde_json::from_str::<Record>(&json).unwrap(),
                record,
                "{}",
                json
            );
        }
    }

    #[test]
    fn a_path_in_utf_8_is_text_and_any_other_is_hex() {
        let record = |path: &[u8]| Record {
            single: OsString::from_vec(path.to_vec()).into(),
            optional: None,
            list: Vec::new(),
            keyed: BTreeMap::new(),
        };
        let json = |path: &[u8]| serde_json::to_value(record(path)).unwrap()["single"].clone();
        assert_eq!(
            (json("/ä".as_bytes()), json(b"/a\xff")),
            ("/ä".into(), serde_json::json!({ "bytes": "2f61ff" }))
        );
        for wrong in [
            "{\"bytes\":\"abc\"}",
            "{\"bytes\":\"zz\"}",
            "7",
            "{\"bytes\":\"\u{e4}\"}",
        ] {
            let text =
                format!("{{\"single\":{wrong},\"optional\":null,\"list\":[],\"keyed\":{{}}}}");
            assert!(serde_json::from_str::<Record>(&text).is_err(), "{wrong}");
        }
    }
}
