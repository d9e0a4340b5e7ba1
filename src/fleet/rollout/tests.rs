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
    fn what_a_share_is_written_as_is_that_share(share in any_share()) {
        prop_assert_eq!(share.to_string().parse::<Share>(), Ok(share));
        prop_assert_eq!(
            serde_json::from_str::<Share>(&serde_json::to_string(&share).unwrap()).unwrap(),
            share
        );
    }

    /// Of the whole and in tens of thousands, so that no rounding of the test's own is in it.
    #[test]
    fn a_wave_is_never_smaller_than_its_name_and_a_limit_never_larger(
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
    for (text, wants) in [
        ("0", Share::Count(0)),
        ("17", Share::Count(17)),
        ("25%", Share::Part(2_500)),
        ("0.5%", Share::Part(50)),
        ("99.99%", Share::Part(9_999)),
    ] {
        assert_eq!(text.parse(), Ok(wants));
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
fn waves_that_add_nobody_are_none() {
    let check = |text: &str| {
        check_waves(
            &text
                .split(',')
                .map(|t| t.parse().unwrap())
                .collect::<Vec<Share>>(),
        )
    };
    // Which of a number and a percentage is more depends on the group.
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
    for (bad, says) in [
        ("0,100%", "a wave of 0 is nobody"),
        ("0%", "a wave of 0% is nobody"),
        ("1,1", "1 after 1 adds nobody"),
        ("50%,25%", "25% after 50%"),
        ("5,10%,3", "3 after 5"),
        ("100%,1", "1 after 100%"),
    ] {
        assert!(check(bad).is_err_and(|why| why.contains(says)), "{bad}");
    }
}

#[test]
fn a_rollout_is_what_the_group_says_over_what_the_fleet_says() {
    let group =
        |name: &str, more: &str| format!("[[group]]\nname = \"{name}\"\nkind = \"hello\"\n{more}");
    let top = "version = 1\n[rollout]\nwaves = [2, \"0.5%\"]\nmax_failures = \
               \"10%\"\nmax_unresponsive = 1\nbake = \"1m\"\ngate = [\"/bin/g\", \
               \"${x}\"]\non_failure = \"stop\"\n";
    let own = "[group.rollout]\nwaves = \"100%\"\nmax_failures = 0\nmax_unresponsive = \"1%\"\nbake = \
               \"0s\"\ngate = []\non_failure = \"continue\"\n";
    let groups = read(&format!(
        "{top}{}{}{}",
        group("a", ""),
        group("b", own),
        group("c", "[group.rollout]\nbake = \"2s\"\n")
    ));
    let [a, b, c] = [0, 1, 2].map(|at| groups[at].rollout.clone());
    let (waves, gate) = (
        vec![Share::Count(2), Share::Part(50)],
        vec!["/bin/g".to_owned(), "${x}".into()],
    );
    let bake = Duration::from_secs(60);
    let max_failures = Share::Part(1_000);
    assert_eq!(
        a,
        Rollout {
            waves,
            max_failures,
            alone: false,
            max_unresponsive: Share::Count(1),
            bake,
            gate,
            on_failure: OnFailure::Stop
        }
    );
    let (waves, max_failures, max_unresponsive) =
        (vec![Share::Part(10_000)], Share::Count(0), Share::Part(100));
    let (bake, gate) = (Duration::ZERO, Vec::new());
    assert_eq!(
        b,
        Rollout {
            waves,
            max_failures,
            alone: true,
            max_unresponsive,
            bake,
            gate,
            on_failure: OnFailure::Continue
        },
        "its own budget is its own"
    );
    assert_eq!(
        c,
        Rollout {
            bake: Duration::from_secs(2),
            ..a
        }
    );
    let plain = read(&format!("version = 1\n{}", group("a", "")))
        .remove(0)
        .rollout;
    assert_eq!(plain, Rollout::default());
    assert_eq!(
        (plain.waves, plain.on_failure),
        (
            vec![Share::Count(1), Share::Part(10_000)],
            OnFailure::Revert
        )
    );
}

#[test]
fn a_group_keeps_what_it_comes_after_itself() {
    let group = |name: &str, after: &str| {
        format!("[[group]]\nname = \"{name}\"\nkind = \"hello\"\n{after}\n")
    };
    let text = [
        "version = 1\n",
        &group("d", "after = [\"c\"]"),
        &group("a", ""),
        &group("c", "after = [\"b\"]"),
        &group("b", "after = \"a\""),
    ];
    let groups = read(&text.concat());
    let after = |at: usize| groups[at].after.clone();
    assert_eq!(
        (after(0), after(1), after(2), after(3)),
        (vec!["c".into()], vec![], vec!["b".into()], vec!["a".into()])
    );
}
