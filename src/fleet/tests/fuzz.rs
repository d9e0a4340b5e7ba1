//! Random texts do not make the reader of `fleet.toml` panic.

use std::path::Path;

use proptest::prelude::*;

use crate::fleet::Fleet;

/// Keys of a group, and some that do not exist.
const KEYS: [&str; 44] = [
    "name",
    "kind",
    "match",
    "exclude",
    "leader",
    "worker",
    "pid_file",
    "user",
    "count",
    "hosts",
    "per_host",
    "config",
    "config_under",
    "source",
    "needs_restart",
    "restart_keys",
    "restart_value",
    "restart_pending",
    "secret",
    "validate",
    "validate_titled",
    "on_bad_config",
    "revive",
    "reloads",
    "executes_itself",
    "speaks",
    "listen",
    "signal",
    "reload_by",
    "timeout",
    "instances",
    "samples",
    "confirm",
    "reject",
    "rollout",
    "after",
    "unproven",
    "rollout.waves",
    "rollout.spread",
    "rollout.apart",
    "rollout.bake",
    "rollout.gate",
    "rollout.max_unresponsive",
    "none",
];

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<String>().prop_map(|text| format!("{text:?}")),
        "[{}\\[\\]:%.*a-z0-9-]{0,12}".prop_map(|text| format!("'{text}'")),
        "(\\{(listen|exe|arg:-c|candidate|pid|args|opt:-x|config)(\\}|/)?){1,3}"
            .prop_map(|text| format!("'{text}'")),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        "[0-9]{1,25}(s|ms|h|d|%|\\.\\.)?".prop_map(|text| format!("'{text}'")),
        Just("true".to_owned()),
        Just("[{ on = 'zone=a' }, '25%']".to_owned()),
        Just("{ exe = 'x', args = ['serve'] }".to_owned()),
        Just("[{ http = 'http://{listen}/', read = 'json:/a', changed = true }]".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|all| format!("[{}]", all.join(", "))),
            ("[a-z_]{1,8}", inner).prop_map(|(key, value)| format!("{{ {key} = {value} }}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_fleet_makes_its_reader_panic(
        keys in proptest::collection::vec((proptest::sample::select(&KEYS[..]), value()), 0..6),
        kind in any::<bool>(),
    ) {
        let kind = if kind {
            "kind = 'hello'\n"
        } else {
            "match = { exe = 'x' }\nconfirm = []\n"
        };
        let lines: String = keys
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        if let Err(e) = Fleet::parse(
            format!(
                "version = 1\n[hosts]\nlist = ['a']\n[[group]]\nname = \
                'a'\n{kind}{lines}"
            )
            .as_bytes(),
            Path::new("fleet.toml"),
        ) {
            prop_assert!(!e.to_string().is_empty());
        }
    }

    #[test]
    fn no_bytes_make_its_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in any::<String>(),
    ) {
        let _ = (
            Fleet::parse(&bytes, Path::new("a")),
            Fleet::parse(text.as_bytes(), Path::new("b")),
        );
    }
}
