//! Random schedules of faults over 3 to 8 agents. A seed gives the same schedule on every machine:
//! `HELLO_TEST_SEED=N` runs that one alone, and `HELLO_TEST_SEED=N..M` some of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use super::{
    check::NEW,
    end::{Verb, end_everything, judge_run, story},
    evidence::Evidence,
    fault::{Phase, TWO_LEASES},
};
use crate::{hosts::bed::Bed, random::Random, support::run_to_end};

/// The schedules of a sample, and of a full test.
const SAMPLE: u64 = 10;
const FULL: u64 = 500;
/// The first seed.
const FIRST: u64 = 20_000;

/// A run over hosts, with the faults on the wire of each.
#[derive(Debug)]
struct Schedule {
    hosts: usize,
    rules: Vec<Vec<Value>>,
    rollout: String,
    args: Vec<&'static str>,
    verb: Verb,
}

impl Schedule {
    fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hosts = random.between(3, 8);
        let mut rules = vec![Vec::new(); hosts];
        for _ in 0..random.between(1, 4) {
            rules[random.below(hosts)].push(rule(&mut random));
        }
        let waves = random.pick(&[r#"["1", "100%"]"#, r#"["100%"]"#, r#"["1", "50%", "100%"]"#]);
        let bake = random.pick(&["0s", "50ms"]);
        let failures = random.pick(&["0", "1", "50%"]);
        let gate = if random.chance(15) {
            "gate = [\"sh\", \"-c\", \"exit 1\"]\n"
        } else {
            ""
        };
        let rollout = format!(
            "[rollout]\nwaves = {waves}\nbake = \"{bake}\"\nmax_failures = \"{failures}\"\n{gate}"
        );
        let args = random.pick(&[
            vec![],
            vec!["--max-unreachable", "1"],
            vec!["--max-unreachable", "50%"],
        ]);
        let verb = random.pick(&[Verb::Resume, Verb::Revert]);
        Self {
            hosts,
            rules,
            rollout,
            args,
            verb,
        }
    }

    fn ends_an_agent(&self) -> bool {
        self.rules.iter().flatten().any(|rule| rule["act"] == "end")
    }

    /// Runs the schedule. Returns what is wrong, with everything that explains it.
    fn run(&self) -> Result<(), String> {
        let bed = Bed::start(&vec![1; self.hosts]);
        bed.fleet(&self.rollout);
        for (host, rules) in self.rules.iter().enumerate() {
            bed.between(host, rules);
        }
        let before = Evidence::all(&bed);
        let set = format!("message={NEW}");
        let args = [&["broadcast", "--set", &set], self.args.as_slice()].concat();
        let end = run_to_end(&mut bed.command(&args));
        let mut faults = Vec::new();
        let ended = (self.ends_an_agent(), None);
        judge_run(&bed, (&end, &before), ended, &mut faults);
        // What was not used yet would disturb the end.
        for host in 0..self.hosts {
            bed.connect_directly(host);
        }
        bed.fleet(Phase::Survey.rollout());
        faults.extend(end_everything(&bed, self.verb, None));
        if faults.is_empty() {
            return Ok(());
        }
        let faults = faults.join("\n");
        Err(format!("{self:#?}\n{faults}\n{}", story(&bed, &end)))
    }
}

/// Returns a fault at a random line.
fn rule(random: &mut Random) -> Value {
    let mut rule = random.weighted(&[
        (6, json!({ "act": "cut" })),
        (2, json!({ "act": "cut", "open": 1 })),
        (2, json!({ "act": "cut", "down": { "refuse": 2 } })),
        (2, json!({ "act": "cut", "down": { "seconds": 1.5 } })),
        (3, json!({ "act": "cut", "down": {} })),
        (4, json!({ "act": "end" })),
        (2, json!({ "act": "end", "down": {} })),
        (2, json!({ "act": "kill" })),
        (1, json!({ "act": "int" })),
        (1, json!({ "act": "pause", "seconds": TWO_LEASES })),
        (1, json!({ "act": "freeze", "seconds": 2 })),
        (1, json!({ "act": "stop" })),
        (3, json!({ "act": "double" })),
        (3, json!({ "act": "hold", "seconds": 0.4 })),
        (2, json!({ "act": "swap" })),
        (2, json!({ "act": "garble" })),
        (1, json!({ "act": "long", "bytes": 2 << 20 })),
        (1, json!({ "act": "insert", "text": "garbage\n" })),
    ]);
    let way = random.pick(&[">", "<"]);
    let line = match way {
        ">" => r#""n":"#,
        _ => random.pick(&[r#""a":"#, r#""ev":"#]),
    };
    rule["way"] = json!(way);
    rule["line"] = json!(line);
    rule["nth"] = json!(random.between(1, 8));
    rule["back"] = json!(true);
    if random.chance(25) {
        rule["connection"] = json!(2);
    }
    rule
}

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("HELLO_TEST_SEED") {
        let number = |text: &str| text.parse::<u64>().unwrap();
        return match seed.split_once("..") {
            Some((first, end)) => (number(first)..number(end)).collect(),
            None => vec![number(&seed)],
        };
    }
    let full = std::env::var_os("HELLO_TEST_FULL").is_some();
    (FIRST..FIRST + if full { FULL } else { SAMPLE }).collect()
}

#[test]
fn a_random_schedule_of_faults_has_no_false_claim_and_ends() {
    let mut failed = Vec::new();
    for seed in seeds() {
        eprintln!("HELLO_TEST_SEED={seed}");
        let schedule = Schedule::of(seed);
        let result = catch_unwind(AssertUnwindSafe(|| schedule.run()));
        let result = result.unwrap_or_else(|_| Err(format!("{schedule:#?}\nit did not end")));
        if let Err(story) = result {
            failed.push(format!("HELLO_TEST_SEED={seed}\n{story}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} failed\n{}",
        failed.len(),
        failed.join("\n\n")
    );
}

#[test]
fn a_seed_gives_one_schedule() {
    let text = |seed| format!("{:?}", Schedule::of(seed));
    assert_eq!(text(FIRST), text(FIRST));
    assert_ne!(text(FIRST), text(FIRST + 1));
}
