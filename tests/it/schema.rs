//! `hello schema`: every output is as its schema says, and so is every fleet file.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jsonschema::Validator;
use serde_json::Value;

use crate::support::Fleet;

/// An assertion that never holds.
const NEVER: &str = "[[group.confirm]]\nexec = [\"echo\", \"a\"]\nequals = \"b\"\n";

fn hello(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hello"))
        .args(args)
        .stdin(Stdio::null())
        .env_remove("HELLO_FLEET")
        .env_remove("HELLO_STATE")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), stdout)
}

/// Returns a schema as the program prints it.
fn schema(subject: &str) -> Value {
    let (code, text) = hello(&["schema", subject]);
    assert_eq!(code, 0, "{subject}");
    serde_json::from_str(&text).unwrap()
}

/// Makes every object of a schema reject keys that it does not name. The schema of an output allows
/// them, because a later version may add some.
fn close(name: &str, schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            for (name, inner) in keys.iter_mut() {
                close(name, inner);
            }
            // `began` has one key more than the object that it refers to.
            let is_part = keys.contains_key("anyOf") || keys.contains_key("$ref");
            let is_object = keys.get("properties").is_some_and(Value::is_object);
            if is_object && !is_part && name != "RunBegan" && name != "properties" {
                keys.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| close("", inner)),
        _ => {}
    }
}

/// Returns the validator of an output, which rejects unknown keys.
fn closed(subject: &str) -> Validator {
    let mut schema = schema(subject);
    close("", &mut schema);
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
fn assert_valid(validator: &Validator, value: &Value) {
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{value:#}");
}

/// Checks both forms of the output of a broadcast. `{}` in an argument is the form, so that each is
/// a change.
fn check_run(fleet: &Fleet, args: &[&str], exit: i32) {
    let (result, events) = (closed("result"), closed("events"));
    for form in ["json", "jsonl"] {
        let args: Vec<String> = args.iter().map(|arg| arg.replace("{}", form)).collect();
        let output = fleet.command(&["-o", form]).args(&args).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(exit),
            "{args:?}\n{stderr}\n{stdout}"
        );
        let lines: Vec<Value> = stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let (last, others) = lines.split_last().unwrap();
        assert_valid(&result, last);
        assert_eq!(last["exit"], exit);
        assert!(form == "jsonl" || others.is_empty(), "{stdout}");
        for line in &lines {
            assert_valid(&events, line);
        }
    }
}

#[test]
fn every_schema_is_one() {
    for subject in ["result", "events", "status", "hosts", "fleet"] {
        let schema = schema(subject);
        assert!(jsonschema::meta::is_valid(&schema), "{subject}");
    }
    assert_eq!(hello(&["schema", "reslt"]).0, 2);
    assert_eq!(hello(&["schema"]).0, 2);
}

#[test]
fn every_output_of_a_run_is_as_its_schema_says() {
    let fleet = Fleet::start(2);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    let bad = fleet.write("bad.toml", "message = 3\n");
    let bad = bad.to_str().unwrap();
    check_run(&fleet, &["--set", "message={}", "--dry-run"], 0);
    check_run(&fleet, &["--config", bad], 4);
    check_run(&fleet, &["--set", "message={}", "--count", "9"], 3);
    check_run(&fleet, &["--waves", "none", "--dry-run"], 2);
    let gated = "[rollout]\nbake = \"10ms\"\ngate = [\"true\"]\n";
    fleet.write("fleet.toml", &format!("{text}{gated}"));
    check_run(&fleet, &["--set", "message={}"], 0);
    fleet.write("fleet.toml", &format!("{text}{NEVER}"));
    check_run(&fleet, &["--set", "message=no-{}", "--timeout", "1s"], 7);
    // It takes the place of the runs that ended mixed.
    fleet.write("fleet.toml", &text);
    check_run(&fleet, &["--set", "message=at-last-{}"], 0);
    // The journals of these runs: `began` and `superseded_by` stand only there.
    let events = closed("events");
    let state = fleet.path("state");
    let state = state.to_str().unwrap();
    let (_, runs) = hello(&["history", "-o", "jsonl", "--state", state]);
    let mut words = Vec::new();
    for run in runs.lines() {
        let run: Value = serde_json::from_str(run).unwrap();
        let id = run["run"].as_str().unwrap();
        let (_, journal) = hello(&["history", id, "-o", "jsonl", "--state", state]);
        for line in journal.lines() {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let keys = line.as_object_mut().unwrap();
            assert_eq!(keys.remove("v"), Some(2.into()));
            assert!(keys.remove("at").is_some_and(|at| at.is_string()));
            assert_valid(&events, &line);
            words.push(line["event"].as_str().unwrap().to_owned());
        }
    }
    for word in [
        "began",
        "gate",
        "baked",
        "superseded",
        "superseded_by",
        "rollback_began",
    ] {
        assert!(words.iter().any(|seen| seen == word), "{word}: {words:?}");
    }
}

#[test]
fn every_output_of_status_is_as_its_schema_says() {
    let validator = closed("status");
    let fleet = Fleet::start(1);
    let check = |exit: i32, run: &Fleet| {
        let json = run.status().expect(exit).json;
        assert_valid(&validator, &json);
        assert_eq!(json["exit"], exit);
        json
    };
    check(0, &fleet);
    let config = fleet.text();
    fleet.write("web.toml", "message = \"later\"\n");
    check(7, &fleet);
    fleet.write("web.toml", &config);
    let text = std::fs::read_to_string(fleet.path("fleet.toml")).unwrap();
    fleet.write("fleet.toml", &format!("{text}{NEVER}"));
    fleet
        .broadcast(&["--set", "message=no", "--timeout", "1s"])
        .expect(7);
    let json = check(7, &fleet);
    assert_eq!(json["open"].as_array().map(Vec::len), Some(1), "{json:#}");
    check(3, &Fleet::start(0));
    let (code, stdout) = hello(&["status", "--fleet", "/no/such/file", "-o", "json"]);
    assert_eq!(code, 2);
    assert_valid(&validator, &serde_json::from_str(&stdout).unwrap());
}

/// Returns a fleet file as JSON.
fn as_json(text: &str) -> Value {
    let table: toml::Table = toml::from_str(text).unwrap();
    serde_json::to_value(table).unwrap()
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

#[test]
fn every_fleet_file_of_this_repository_is_as_the_schema_says() {
    let validator = jsonschema::validator_for(&schema("fleet")).unwrap();
    let kinds = files("src/kinds", "toml");
    assert!(kinds.len() > 10);
    for kind in kinds {
        let name = kind.file_stem().unwrap().to_str().unwrap();
        let (code, group) = hello(&["kinds", name]);
        assert_eq!(code, 0, "{name}");
        assert_valid(&validator, &as_json(&format!("version = 1\n{group}")));
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fleet.toml");
    assert_valid(&validator, &as_json(&std::fs::read_to_string(own).unwrap()));
    let mut blocks = 0;
    for page in files("docs", "md").into_iter().chain(files("", "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = as_json(block.split("```").next().unwrap());
            // Other blocks are configs of `hello serve`, or parts of a group.
            if block.get("version").is_some() {
                assert_valid(&validator, &block);
                blocks += 1;
            }
        }
    }
    assert!(blocks >= 3, "only {blocks} blocks");
}

#[test]
fn a_wrong_key_or_value_is_not_as_the_schema_says() {
    let validator = jsonschema::validator_for(&schema("fleet")).unwrap();
    let file = |more: &str| {
        as_json(&format!(
            "version = 1\n[[group]]\nname = \"a\"\nmatch = {{ exe = \"a\" }}\n{more}\n"
        ))
    };
    for good in [
        "",
        "count = 3",
        "count = \"3..\"",
        "reloads = \"unchecked\"",
        "validate = \"none\"",
        "validate = [\"{exe}\", \"{candidate}\"]",
        "config = \"{arg:-c}/x\"",
        "config = [[\"/a\", \"{env:A}\"], [\"/b\"]]",
        "confirm = []",
        "[group.rollout]\nwaves = [1, \"25%\"]",
        "[group.rollout]\nwaves = [{ on = \"a\" }, 1]\nspread = \"zone\"\napart = \"pair\"",
        "hosts = \"role=a\"\nper_host = \"1..\"",
        "[hosts]\nlist = [\"a\"]\nmax_unreachable = \"1%\"",
        "[[group.confirm]]\nexec = [\"x\"]\nchanged = true",
    ] {
        assert!(validator.is_valid(&file(good)), "{good}");
    }
    for wrong in [
        "timeuot = \"1s\"",
        "worker = { exee = \"a\" }",
        "instances = [{ pid = 1, port = 2 }]",
        "count = \"many\"",
        "count = true",
        "kind = \"ngnix\"",
        "reloads = \"yes\"",
        "signal = \"SIGTERM\"",
        "validate = \"auto\"",
        "config = \"relative\"",
        "speaks = \"none \"",
        "samples = 0",
        "[group.rollout]\nwave = 1",
        "[group.rollout]\nwaves = [{ in = \"a\" }]",
        "[group.rollout]\nwaves = [{ on = \"a\", x = 1 }]",
        "per_host = true",
        "[hosts]\nlist = [\"a\"]\nmax_unreachable = \"some\"",
        "[group.rollout]\nmax_failures = \"some\"",
        "[[group.confirm]]\nexec = [\"x\"]\nequal = \"a\"",
        "[[group.confirm]]\nhttp = \"http://{listen}\"\nstatus = 100",
    ] {
        assert!(!validator.is_valid(&file(wrong)), "{wrong}");
    }
    assert!(!validator.is_valid(&as_json("version = 2")));
    assert!(!validator.is_valid(&as_json("version = 1\n[rolout]")));
}
