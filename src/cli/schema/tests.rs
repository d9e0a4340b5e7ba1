use super::*;

const ALL: [Subject; 5] = [
    Subject::Result,
    Subject::Events,
    Subject::Status,
    Subject::Hosts,
    Subject::Fleet,
];

#[test]
fn every_document_names_its_draft_and_itself() {
    for subject in ALL {
        let document = subject.document();
        let draft = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(document["$schema"], draft, "{subject:?}");
        for key in ["$id", "title"] {
            assert!(document[key].is_string(), "{subject:?} {key}");
        }
    }
}

/// Calls `check` with every object of a document.
fn visit(value: &Value, check: &impl Fn(&Map<String, Value>)) {
    match value {
        Value::Object(keys) => {
            check(keys);
            keys.values().for_each(|value| visit(value, check));
        }
        Value::Array(list) => list.iter().for_each(|value| visit(value, check)),
        _ => {}
    }
}

#[test]
fn a_fleet_file_has_no_null_and_no_unknown_key() {
    visit(&Subject::Fleet.document(), &|keys| {
        assert_ne!(keys.get("type"), Some(&"null".into()), "{keys:?}");
        if keys
            .get("properties")
            .is_some_and(|inner| inner.get("type").is_none())
        {
            assert_eq!(
                keys.get("additionalProperties"),
                Some(&false.into()),
                "{keys:?}"
            );
        }
    });
}

#[test]
fn every_key_of_a_fleet_file_has_a_description() {
    let document = Subject::Fleet.document();
    for (name, table) in document["$defs"].as_object().into_iter().flatten() {
        for (key, schema) in table["properties"].as_object().into_iter().flatten() {
            assert!(schema["description"].is_string(), "{name}.{key}");
        }
    }
}

#[test]
fn every_kind_is_a_word_of_the_schema() {
    let document = Subject::Fleet.document();
    let kinds = document["$defs"]["Group"]["properties"]["kind"]["enum"].as_array();
    assert_eq!(kinds.map(Vec::len), Some(fleet::KINDS.len()));
}
