#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

mod faults;
mod fuzz;
mod hosts;
mod roundtrip;
mod tables;

fn parse(text: &str) -> Result<Fleet, FleetError> {
    Fleet::parse(text.as_bytes(), Path::new("fleet.toml"))
}

#[test]
fn a_kind_sets_the_keys_that_a_group_does_not_set() {
    let fleet =
        parse("version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ncount = \"3..\"\n")
            .unwrap();
    let group = &fleet.groups[0];
    assert_eq!(
        group.config,
        [[PathBase::Arg("--config".into(), PathBuf::new())]]
    );
    assert_eq!(
        group.count,
        Count {
            min: 3,
            max: usize::MAX
        }
    );
    assert_eq!(
        (group.timeout, group.reloads, group.samples),
        (std::time::Duration::from_secs(5), Reloads::Yes, 1)
    );
}

#[test]
fn every_key_of_a_group_without_a_kind() {
    let fleet = parse(
        "version = 1\n[[group]]\nname = \"api\"\nmatch = \
         { exe = \"/opt/*/api\", args = [\"run\"], user = \"app\" }\nexclude = \
         { args = [\"--once\"] }\n\
         user = \"app\"\ncount = 3\nconfig = [\"{arg:-c}\", \"/etc/api.conf\"]\nconfig_under \
         = \"/etc\"\nsecret = true\nreloads = \"unchecked\"\n\
         listen = \"tcp:8081\"\nsignal = \"SIGUSR1\"\ntimeout = \"500ms\"\nsamples = 2\n\
         [[group.confirm]]\nhttp = \"http://{listen}/m\"\nread = \
         'metric:reloads{ok=\"1\"}'\nincreased = true\n\
         [[group.reject]]\nhttp = \"http://{listen}/m\"\nread = \"metric:failed\"\nequals = \
         \"1\"\n",
    );
    let group = &fleet.unwrap().groups[0];
    assert_eq!(
        group.config,
        [[
            PathBase::Arg("-c".into(), PathBuf::new()),
            PathBase::Path("/etc/api.conf".into())
        ]]
    );
    assert_eq!(
        (group.reloads, group.signal, group.secret),
        (Reloads::Unchecked, Signal::Usr1, Some(true))
    );
    assert_eq!(
        (group.listen.clone(), group.config_under.clone()),
        (vec![ListenAt::TcpPort(8081)], vec![PathBuf::from("/etc")])
    );
    assert_eq!(
        (
            group.confirm.len(),
            group.reject.len(),
            group.samples,
            group.count
        ),
        (1, 1, 2, Count { min: 3, max: 3 })
    );
}

#[test]
fn a_group_without_assertions_must_be_explicit() {
    let group =
        &parse("version = 1\n[[group]]\nname = \"a\"\nmatch = { exe = \"a\" }\nconfirm = []\n")
            .unwrap()
            .groups[0];
    assert!(group.confirm.is_empty() && group.config.is_empty() && group.reloads == Reloads::No);
    assert!(
        Fleet::of_kind("helo")
            .unwrap_err()
            .to_string()
            .contains("`hello`")
    );
}

#[test]
fn every_kind_is_a_group_and_describes_its_daemon() {
    for kind in KINDS {
        let group = Fleet::of_kind(kind.name).unwrap().groups.remove(0);
        assert!(
            group.never_reloads().is_some()
                || group.reloads == Reloads::Yes && !group.config.is_empty(),
            "{}",
            kind.name
        );
        assert!(
            kind.about().len() > 20 && kind.about().starts_with(kind.name),
            "{}: {}",
            kind.name,
            kind.about()
        );
        // Copied into a fleet.toml, it is the same group.
        let copied = Fleet::parse(
            format!("version = 1\n\n{}", kind.as_group()).as_bytes(),
            Path::new("fleet.toml"),
        )
        .unwrap()
        .groups
        .remove(0);
        let plain = |g: &Group| {
            serde_json::to_value(Group {
                kind: None,
                ..g.clone()
            })
            .unwrap()
        };
        assert_eq!(plain(&copied), plain(&group), "{}", kind.name);
    }
}

#[test]
fn counts() {
    assert_eq!(parse_count("..5").unwrap(), Count { min: 1, max: 5 });
    assert_eq!(parse_count("4").unwrap(), Count { min: 4, max: 4 });
    assert!(parse_count("5..3").is_err() && parse_count("x").is_err());
}
