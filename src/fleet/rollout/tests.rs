#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::fleet::{Fleet, Group};

fn read(text: &str) -> Vec<Group> {
    Fleet::parse(text.as_bytes(), Path::new("fleet.toml"))
        .unwrap()
        .groups
}

fn any_share() -> impl Strategy<Value = Share> {
    prop_oneof![
        (0..100_000usize).prop_map(Share::Count),
        (0..=10_000u32).prop_map(Share::Part)
    ]
}

proptest! {
    #[test]
    fn a_share_reads_back_as_the_same(share in any_share()) {
        prop_assert_eq!(share.to_string().parse::<Share>(), Ok(share));
        prop_assert_eq!(
            serde_json::from_str::<Share>(&serde_json::to_string(&share).unwrap()).unwrap(),
            share
        );
    }

    /// Compares in units of 1/10,000, so that the test does not round itself.
    #[test]
    fn a_wave_is_never_smaller_than_its_share_and_a_limit_never_larger(
        share in any_share(),
        all in 0..100_000usize,
    ) {
        let (up, down) = (share.rounded_up(all), share.rounded_down(all));
        prop_assert!(down <= up && up <= all && up - down <= 1);
        match share {
            Share::Count(n) => prop_assert!(up == down && up == n.min(all)),
            Share::Part(part) => {
                let exact = all * part as usize;
                prop_assert!(up * 10_000 >= exact && down * 10_000 <= exact);
                prop_assert!(
                    (up * 10_000 < exact + 10_000) && (down + 1) * 10_000 > exact,
                    "not further than needed"
                );
            }
        }
    }
}

#[test]
fn a_share_is_a_number_or_a_percentage() {
    for (text, wanted) in [
        ("0", Share::Count(0)),
        ("17", Share::Count(17)),
        ("25%", Share::Part(2_500)),
        ("0.5%", Share::Part(50)),
        ("99.99%", Share::Part(9_999)),
    ] {
        assert_eq!(text.parse(), Ok(wanted));
    }
    for text in [
        "",
        "%",
        "-1",
        "+1",
        "1.5",
        "+5%",
        "-5%",
        "100.01%",
        "101%",
        "1.234%",
        "1.%",
        ".5%",
        " 1",
        "1 %",
        "a",
        "5%%",
        "99999999999999999999",
        "99999999999%",
    ] {
        assert!(text.parse::<Share>().is_err(), "{text}");
    }
    assert_eq!(
        (Share::Part(50).to_string(), Share::Part(2_500).to_string()),
        ("0.50%".into(), "25%".into())
    );
}

#[test]
fn waves_that_add_no_instances_are_refused() {
    let check = |text: &str| {
        check_waves(
            &text
                .split(',')
                .map(|t| t.parse::<Share>().unwrap().into())
                .collect::<Vec<WaveEnd>>(),
        )
    };
    // Whether a number or a percentage is more depends on the group.
    for good in [
        "1",
        "100%",
        "1,100%",
        "1,25%,100%",
        "10%,5,50%",
        "1,2,3",
        "50%,2",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for (bad, wanted) in [
        ("0,100%", "a wave of 0 has no instances"),
        ("0%", "a wave of 0% has no instances"),
        ("1,1", "1 after 1 adds no instances"),
        ("50%,25%", "25% after 50%"),
        ("5,10%,3", "3 after 5"),
        ("100%,1", "1 after 100%"),
    ] {
        assert!(
            check(bad).is_err_and(|why| why.to_string().contains(wanted)),
            "{bad}"
        );
    }
}

fn group(name: &str, more: &str) -> String {
    format!("[[group]]\nname = \"{name}\"\nkind = \"hello\"\n{more}")
}

#[test]
fn a_group_without_a_rollout_has_the_default() {
    let text = format!("version = 1\n{}", group("a", ""));
    let rollout = read(&text).remove(0).rollout;
    assert_eq!(rollout, Rollout::default());
    assert_eq!(
        rollout.waves,
        [Share::Count(1).into(), Share::Part(10_000).into()]
    );
    assert_eq!(rollout.on_failure, OnFailure::Revert);
}

#[test]
fn a_group_overrides_the_rollout_of_the_fleet() {
    let top = "version = 1\n[rollout]\nwaves = [2, \"0.5%\"]\nmax_failures = \
               \"10%\"\nmax_unresponsive = 1\nbake = \"1m\"\ngate = [\"/bin/g\", \
               \"${x}\"]\non_failure = \"stop\"\n";
    let own = "[group.rollout]\nwaves = \"100%\"\nmax_failures = 0\nmax_unresponsive = \
               \"1%\"\nbake = \"0s\"\ngate = []\non_failure = \"continue\"\n";
    let groups = read(&format!(
        "{top}{}{}{}",
        group("a", ""),
        group("b", own),
        group("c", "[group.rollout]\nbake = \"2s\"\n")
    ));
    let of_fleet = Rollout {
        waves: vec![Share::Count(2).into(), Share::Part(50).into()],
        spread: None,
        apart: None,
        max_failures: Share::Part(1_000),
        alone: false,
        max_unresponsive: Share::Count(1),
        limits_unresponsive: true,
        skips_unresponsive: false,
        bake: Duration::from_secs(60),
        gate: vec!["/bin/g".to_owned(), "${x}".into()],
        on_failure: OnFailure::Stop,
    };
    let of_group = Rollout {
        waves: vec![Share::Part(10_000).into()],
        spread: None,
        apart: None,
        max_failures: Share::Count(0),
        alone: true,
        max_unresponsive: Share::Part(100),
        limits_unresponsive: true,
        skips_unresponsive: false,
        bake: Duration::ZERO,
        gate: Vec::new(),
        on_failure: OnFailure::Continue,
    };
    assert_eq!(groups[0].rollout, of_fleet);
    assert_eq!(groups[1].rollout, of_group, "its budget is its own");
    assert_eq!(
        groups[2].rollout,
        Rollout {
            bake: Duration::from_secs(2),
            ..of_fleet
        }
    );
}

#[test]
fn a_group_keeps_the_groups_that_it_comes_after() {
    let text = [
        "version = 1\n",
        &group("d", "after = [\"c\"]\n"),
        &group("a", ""),
        &group("c", "after = [\"b\"]\n"),
        &group("b", "after = \"a\"\n"),
    ];
    let groups = read(&text.concat());
    let after: Vec<&[String]> = groups.iter().map(|g| g.after.as_slice()).collect();
    assert_eq!(
        after,
        [&["c".to_owned()][..], &[], &["b".into()], &["a".into()]]
    );
}
