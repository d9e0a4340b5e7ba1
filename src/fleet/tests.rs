#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

fn parse(text: &str) -> Result<Fleet, FleetError> {
    Fleet::parse(text.as_bytes(), Path::new("fleet.toml"))
}

#[test]
fn a_kind_fills_what_a_group_leaves_out() {
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
fn faults_name_the_place_and_what_is_likely() {
    let group = "version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\n";
    for (text, wants) in [
        (
            "version = 1\n[[group]]\nnmae = \"web\"\n".to_owned(),
            ["line 3, column 1", "did you mean `name`?"],
        ),
        (
            "version = 2\n".to_owned(),
            ["line 1, column 11", "version 1"],
        ),
        ("version = 1\n".to_owned(), ["[[group]]", ""]),
        (String::new(), ["missing field `version`", "add `version"]),
        (
            group.replace("\"hello\"", "\"helo\""),
            ["line 4, column 8", "did you mean `hello`?"],
        ),
        (
            format!("{group}{}", &group[12..]),
            ["line 6, column 8", "two groups are named `web`"],
        ),
        (
            format!("{group}count = \"5..3\"\n"),
            ["line 5, column 9", "wrong way round"],
        ),
        (
            format!("{group}count = true\n"),
            ["line 5, column 9", "3.."],
        ),
        (
            format!("{group}timeout = \"5 parsecs\"\n"),
            ["line 5, column 11", "no duration"],
        ),
        (
            format!("{group}match = {{ exe = \"[\" }}\n"),
            ["line 5, column 9", "exe"],
        ),
        (
            format!("{group}match = {{ ex = \"a\" }}\n"),
            ["line 5, column 11", "did you mean `exe`?"],
        ),
        (
            format!("{group}match = {{ }}\n"),
            ["line 5, column 9", "nothing"],
        ),
        (
            format!("{group}config = \"web.toml\"\n"),
            ["line 5, column 10", "absolute"],
        ),
        (
            format!("{group}listen = \"8081\"\n"),
            ["line 5, column 10", "tcp:PORT"],
        ),
        (
            format!("{group}signal = \"SIGKILL\"\n"),
            ["line 5, column 10", "SIGHUP"],
        ),
        (
            format!("{group}reloads = \"maybe\"\n"),
            ["line 5, column 11", "unchecked"],
        ),
        (
            format!("{group}name = \"other\"\n"),
            ["line 5, column 1", "duplicate key"],
        ),
        (
            format!("{group}validate = [\"x\", \"{{candidat}}\"]\n"),
            ["line 5, column 18", "{candidate}"],
        ),
        (
            format!("{group}validate = \"nginx -t\"\n"),
            ["line 5, column 12", "`validate = [\"nginx -t\"]`"],
        ),
        (
            format!("{group}validate = 3\n"),
            ["line 5, column 12", "a list of arguments, or \"none\""],
        ),
        (
            format!("{group}on_bad_config = \"dies\"\nvalidate = \"none\"\n"),
            ["line 6, column 12", "revive"],
        ),
        (
            format!("{group}[[group.confirm]]\nexec = [\"x\", \"-{{args}}\"]\nequals = \"a\"\n"),
            ["line 5", "stands alone"],
        ),
        (
            format!("{group}timeout = 5\n"),
            ["line 5, column 11", "invalid type"],
        ),
        (
            format!("{group}instances = [{{ pid = 0 }}]\n"),
            ["line 5, column 13", "above 0"],
        ),
        (
            format!(
                "{group}[[group.confirm]]\nhttp = \"http://x/\"\nequals = \"a\"\nchanged = \
                 true\n"
            ),
            ["line 5", "exactly one"],
        ),
        (
            "version = 1\n[[group]]\nname = \"a\"\nmatch = { exe = \"a\" }\n".to_owned(),
            ["line 2", "how a reload is proven"],
        ),
        (
            format!("{group}[group.rollout]\nwave = 1\n"),
            ["line 6, column 1", "did you mean `waves`?"],
        ),
        (
            format!("{group}[group.rollout]\nafter = \"b\"\n"),
            ["line 6, column 1", "unknown field `after`"],
        ),
        (
            format!("{group}after = [\"wbe\"]\n"),
            ["line 5, column 9", "did you mean `web`?"],
        ),
        (
            format!("{group}after = \"web\"\n"),
            ["line 5, column 9", "`web` comes after itself"],
        ),
        (
            format!(
                "{group}after = \"b\"\n{}after = \"web\"\n",
                group[12..].replace("web", "b")
            ),
            ["line 5, column 9", "`web`, `b` wait for each other"],
        ),
        (
            format!("{group}after = 1\n"),
            ["line 5, column 9", "list of strings"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = []\n"),
            ["line 6, column 9", "no wave in it"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = [\"1\", \"half\"]\n"),
            ["line 6, column 9", "neither a number"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = [0.25]\n"),
            ["line 6, column 9", "a percentage such as"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = [\"50%\", \"25%\"]\n"),
            ["line 6, column 9", "25% after 50% adds nobody"],
        ),
        (
            format!("{group}[group.rollout]\nwaves = \"0%\"\n"),
            ["line 6, column 9", "a wave of 0% is nobody"],
        ),
        (
            format!("{group}[group.rollout]\nmax_failures = [1, 2]\n"),
            ["line 6, column 16", "neither a number"],
        ),
        (
            format!("{group}[group.rollout]\nmax_failures = -1\n"),
            ["line 6, column 16", "neither a number"],
        ),
        (
            format!("{group}[group.rollout]\nmax_failures = \"101%\"\n"),
            ["line 6, column 16", "from 0% to 100%"],
        ),
        (
            format!("{group}[group.rollout]\nmax_sick = true\n"),
            ["line 6, column 12", "neither a number"],
        ),
        (
            format!("{group}[group.rollout]\nbake = \"soon\"\n"),
            ["line 6, column 8", "no duration"],
        ),
        (
            format!("{group}[group.rollout]\nbake = \"2h\"\n"),
            ["line 6, column 8", "1h"],
        ),
        (
            format!("{group}[group.rollout]\ngate = \"check\"\n"),
            ["line 6, column 8", "expected a sequence"],
        ),
        (
            format!("{group}[group.rollout]\ngate = [\"\", \"x\"]\n"),
            ["line 6, column 9", "a program and its arguments"],
        ),
        (
            format!("{group}[group.rollout]\ngate = [\"x\", \"{{candidate}}\"]\n"),
            ["line 6, column 14", "no placeholders"],
        ),
        (
            format!("{group}[group.rollout]\non_failure = \"reverts\"\n"),
            ["line 6, column 14", "did you mean `revert`?"],
        ),
        (
            format!("version = 1\n[rollout]\nmax_failure = 1\n{}", &group[12..]),
            ["line 3, column 1", "did you mean `max_failures`?"],
        ),
    ] {
        let said = parse(&text).unwrap_err().to_string();
        assert!(
            said.contains("fleet.toml") && wants.iter().all(|w| said.contains(w)),
            "{text}\n{said}"
        );
    }
}

#[test]
fn a_group_of_which_nothing_can_be_seen_must_say_so() {
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
fn every_kind_is_a_group_and_says_what_its_daemon_does() {
    for kind in KINDS {
        let group = Fleet::of_kind(kind.name).unwrap().groups.remove(0);
        assert!(
            group.reloads == Reloads::Yes && !group.config.is_empty(),
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
