#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

fn exe(pattern: &str) -> Match {
    Match {
        exe: vec![glob::Pattern::new(pattern).unwrap()],
        ..Match::default()
    }
}

#[test]
fn an_executable_is_told_by_name_path_or_glob_whatever_its_length() {
    for (pattern, path, holds) in [
        ("nginx", "/usr/sbin/nginx", true),
        ("nginx", "/usr/sbin/nginx (deleted)", true),
        ("nginx", "/usr/sbin/nginx-debug", false),
        (
            "a-name-of-many-more-than-sixteen-signs",
            "/x/a-name-of-many-more-than-sixteen-signs",
            true,
        ),
        (
            "a-name-of-many-",
            "/x/a-name-of-many-more-than-sixteen-signs",
            false,
        ),
        ("a b) c (d", "/x/a b) c (d", true),
        ("/usr/*/nginx", "/usr/sbin/nginx", true),
        ("/usr/sbin/nginx", "/opt/nginx", false),
        ("python3*", "/usr/bin/python3.11", true),
    ] {
        assert_eq!(
            exe(pattern).has_exe(Path::new(path)),
            holds,
            "{pattern} {path}"
        );
    }
}

#[test]
fn where_only_names_are_to_be_had_they_may_be_cut() {
    for (pattern, comm, name, may) in [
        ("nginx", "nginx", "", true),
        ("/usr/sbin/nginx", "nginx", "", true),
        (
            "a-name-of-many-more-than-sixteen-signs",
            "a-name-of-many-",
            "",
            true,
        ),
        ("a-name-*-signs", "a-name-of-many-", "", true),
        ("another-name-of-many-signs", "a-name-of-many-", "", false),
        ("api", "MainThread", "/opt/api", true),
        ("api", "bash", "-bash", false),
    ] {
        assert_eq!(
            exe(pattern).may_have_exe(comm, name),
            may,
            "{pattern} {comm} {name}"
        );
    }
}

#[test]
fn a_match_grows_by_one_key_at_a_time_and_ends_as_it_is() {
    let glob = |text: &str| glob::Pattern::new(text).unwrap();
    let whole = Match {
        exe: vec![glob("haproxy")],
        args: vec![vec![glob("-W"), glob("-Ws")], vec![glob("-f")]],
        port: Some(80),
        listens: Some("{arg:-l}".parse().unwrap()),
        ..Match::default()
    };
    let steps = whole.steps();
    let said: Vec<&str> = steps.iter().map(|(_, why)| why.as_str()).collect();
    let wanted = [
        "does not execute `haproxy`",
        "has no `-W` or `-Ws` among its arguments",
        "has no `-f` among its arguments",
        "does not listen on port 80",
        "does not listen at {arg:-l}",
    ];
    assert_eq!(said, wanted);
    assert_eq!(
        serde_json::to_value(&steps.last().unwrap().0).unwrap(),
        serde_json::to_value(&whole).unwrap()
    );
    for text in ["tcp:80", "tcp:[::1]:80", "unix:/run/*.sock", "{arg:-l}"] {
        assert_eq!(text.parse::<ListenAt>().unwrap().to_string(), text);
    }
}

#[test]
fn a_unit_is_a_part_of_the_path() {
    for (path, unit, holds) in [
        ("/system.slice/web.service", "web", true),
        ("/system.slice/web.service/inner", "web.service", true),
        (
            "/system.slice/system-web.slice/web@1.service",
            "web@1",
            true,
        ),
        ("/system.slice/_memory.service", "memory", true),
        ("/system.slice/webs.service", "web", false),
        ("/system.slice/a.b.service", "a.b", true),
        ("/user.slice/run-1.scope", "run-1.scope", true),
        ("/", "web", false),
    ] {
        assert_eq!(in_unit(path, &unit_name(unit)), holds, "{path} {unit}");
    }
}
