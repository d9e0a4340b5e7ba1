//! The schemas of the JSON that a run prints.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::Summary;
use crate::{
    event::{Event, VERSION, host_schema},
    runs,
};

/// Returns the schema of the object at the end of a run.
#[must_use]
pub(crate) fn result_schema(mut generator: SchemaGenerator) -> Schema {
    generator.root_schema_for::<Summary>()
}

/// Returns the schema of a line of `-o jsonl`, and of a journal.
#[must_use]
pub(crate) fn event_schema(mut generator: SchemaGenerator) -> Schema {
    generator.root_schema_for::<Line>()
}

/// A line of `-o jsonl`: an event, or the result at the end.
struct Line;

impl JsonSchema for Line {
    fn schema_name() -> Cow<'static, str> {
        "Line".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let began = runs::first_event_schema(generator);
        let event = generator.subschema_for::<Event>();
        let host = host_schema(generator);
        let result = generator.subschema_for::<Summary>();
        json_schema!({
            "type": "object",
            "properties": {
                "v": {
                    "const": VERSION,
                    "description": "Version of this shape; of a journal and of the result."
                },
                "at": {
                    "type": "string",
                    "format": "date-time",
                    "description": "The time of the event; only in a journal."
                },
                "host": host,
            },
            "anyOf": [began, event, result],
        })
    }
}
