//! `hello schema`: the JSON Schema of the output for programs, and of `fleet.toml`.

use std::process::ExitCode;

use schemars::{
    Schema,
    generate::SchemaSettings,
    transform::{RecursiveTransform, RestrictFormats},
};
use serde_json::{Map, Value};

use crate::{event::VERSION, fleet, reach, report, screen, status};

/// What a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Subject {
    /// The object that broadcast, resume and revert print with -o json
    Result,
    /// One line of -o jsonl, and of the events of a run in history
    Events,
    /// The object that status prints with -o json
    Status,
    /// The object that hosts prints with -o json
    Hosts,
    /// fleet.toml
    Fleet,
}

impl Subject {
    fn title(self) -> &'static str {
        match self {
            Self::Result => "The result of hello broadcast, resume or revert",
            Self::Events => "A line of hello -o jsonl",
            Self::Status => "The answer of hello status",
            Self::Hosts => "The answer of hello hosts",
            Self::Fleet => "fleet.toml",
        }
    }

    /// Returns the name that other schemas may refer to it by.
    fn id(self) -> String {
        match self {
            Self::Result => format!("urn:hello:result:{VERSION}"),
            Self::Events => format!("urn:hello:events:{VERSION}"),
            Self::Status => format!("urn:hello:status:{VERSION}"),
            Self::Hosts => format!("urn:hello:hosts:{VERSION}"),
            Self::Fleet => "urn:hello:fleet:1".into(),
        }
    }

    /// Returns the whole document.
    pub(super) fn document(self) -> Value {
        let settings = SchemaSettings::draft2020_12();
        let settings = if self == Self::Fleet {
            let without_null = RecursiveTransform(without_null);
            settings.for_deserialize().with_transform(without_null)
        } else {
            settings.for_serialize()
        };
        // Validators reject or report formats that the standard does not have, such as `uint32`.
        let standard_formats = RestrictFormats::default();
        let generator = settings
            .with_transform(standard_formats)
            .with_transform(RecursiveTransform(unwrap_description))
            .into_generator();
        let schema = match self {
            Self::Result => report::result_schema(generator),
            Self::Events => report::event_schema(generator),
            Self::Status => status::schema(generator),
            Self::Hosts => reach::schema(generator),
            Self::Fleet => fleet::schema(generator),
        };
        let mut document = Map::new();
        document.insert("$schema".into(), Value::Null);
        document.insert("$id".into(), self.id().into());
        document.insert("title".into(), Value::Null);
        if let Value::Object(keys) = schema.to_value() {
            document.extend(keys);
        }
        document.insert("title".into(), self.title().into());
        document.into()
    }
}

/// Joins the lines of a description, which are as long as those of the source.
fn unwrap_description(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// Removes `null` from the types of a value: TOML has none.
fn without_null(schema: &mut Schema) {
    let is_null = |value: &Value| *value == "null" || value["type"] == "null";
    for key in ["type", "anyOf"] {
        let Some(Value::Array(types)) = schema.get_mut(key) else {
            continue;
        };
        types.retain(|value| !is_null(value));
        let single = if types.len() == 1 { types.pop() } else { None };
        match (key, single) {
            ("type", Some(name)) => drop(schema.insert(key.into(), name)),
            (_, Some(Value::Object(inner))) => {
                schema.remove(key);
                for (key, value) in inner {
                    schema.insert(key, value);
                }
            }
            _ => {}
        }
    }
}

/// Prints the schema.
pub(super) fn schema(subject: Subject) -> ExitCode {
    screen::data([format!("{:#}", subject.document())]);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests;
