//! An event with the host that it is about.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Event;
use crate::inventory::HostName;

/// An event, and the host that it is about. `E` is an [`Event`], or a reference to one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct At<E> {
    #[serde(flatten)]
    pub(crate) event: E,
    /// The host; `local` in a journal of a version that did not record it.
    #[serde(default = "HostName::local")]
    pub(crate) host: HostName,
}

impl At<Event> {
    /// Returns an event of this machine.
    pub(crate) fn local(event: Event) -> Self {
        let host = HostName::local();
        Self { event, host }
    }
}

impl<'a> At<&'a Event> {
    /// Returns an event of `host`, unless it names another host itself.
    pub(crate) fn of(host: &HostName, event: &'a Event) -> Self {
        let host = event.host().unwrap_or(host).clone();
        Self { event, host }
    }
}

impl JsonSchema for At<Event> {
    fn schema_name() -> Cow<'static, str> {
        "EventOfHost".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let host = host_schema(generator);
        let event = generator.subschema_for::<Event>();
        json_schema!({
            "type": "object",
            "properties": { "host": host },
            "required": ["host"],
            "anyOf": [event],
        })
    }
}

/// Returns the schema of the key that [`At`] adds to an event.
#[must_use]
pub(crate) fn host_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<HostName>();
    let text = "The host that the event is about; `local` is this machine.";
    schema.insert("description".into(), text.into());
    schema
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn an_event_names_its_host_behind_its_own_keys() {
        let event = At {
            event: Event::FinalCheck,
            host: HostName::new("edge-081").unwrap(),
        };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"final_check","host":"edge-081"}"#);
        assert_eq!(serde_json::from_str::<At<Event>>(&json).unwrap(), event);
    }

    #[test]
    fn an_event_without_a_host_is_of_this_machine() {
        let event = serde_json::from_str::<At<Event>>(r#"{"event":"final_check"}"#).unwrap();
        assert_eq!(event, At::local(Event::FinalCheck));
    }
}
