//! A group reads back from the journal of a run as it was.
use super::*;

fn assert_reads_back(group: &Group) {
    let text = serde_json::to_string(group).unwrap();
    assert_eq!(
        serde_json::from_str::<Group>(&text).unwrap(),
        *group,
        "{text}"
    );
}

/// Returns a `fleet.toml` whose second group sets every key.
fn every_key() -> String {
    let keys = "exe = [\"api\", \"/opt/*/api\"], script = \"run[[]1]\", args = [\"run\", [\"-W\", \
               \"-Ws\"]], user = \"app\", cgroup = \"/a/*\", \
               unit = \"api\", pid_file = \"/run/api.pid\", port = 80";
    format!(
        "version = 1\n[hosts]\nlist = [\"a\"]\n\
         [[group]]\nname = \"first\"\nkind = \"hello\"\n[[group]]\nname = \
         \"api\"\nkind = \"hello\"\n\
         match = {{ {keys}, listens = \"unix:/run/*.s\" }}\nexclude = \
         {{ {keys}, listens = \"tcp:[::1]:80\" }}\n\
         leader = {{ {keys}, listens = \"tcp:80\" }}\nworker = {{ {keys}, listens = \"{{arg:-l}}\" \
         }}\n\
         pid_file = [\"{{arg:--pid}}/x\", \"/run/a.pid\"]\nuser = [\"{{self}}\", \"app\"]\ncount \
         = \"3..\"\nhosts = \"role=api,!zone=lab\"\nper_host = \"1..\"\n\
         config = [[\"{{arg:-c}}\", \"{{cwd}}/a\"], [\"/etc/a.d\"]]\nconfig_under = \
         \"/etc\"\ngetopt = \"a:b\"\nrepeated = \"all\"\n\
         title = \"x {{argv}}\"\nbase = [\"{{arg:-p}}\", \"{{built:--p=}}\"]\nbuilt = \
         [\"{{exe}}\"]\nincludes = [\"i\"]\nno_default = [\"-n\"]\nsource = \"{{config}}.new\"\n\
         needs_restart = \
         [\"/etc/p\"]\n\
         restart_keys = [\"a\"]\nrestart_value = [\"a\", \"{{key}}\"]\nrestart_pending = \
         [\"b\"]\noverridden_keys = [\"o\"]\nsecret = true\nvalidate = [\"{{exe}}\", \
         \"{{candidate}}\"]\nvalidate_titled = [\"{{exe}}\"]\n\
         on_bad_config = \"dies\"\nrevive = [\"c\"]\nreloads = true\nno_signal = \"n\"\n\
         instead = \"i\"\nlasting = [\"l\"]\nexecutes_itself = \
         true\nlisten = [\"tcp:8081\", \"{{arg:--l}}\"]\nreload_by = [\"r\"]\ntimeout = \
         \"500ms\"\n\
         instances = [{{ pid = 1, endpoint = \"unix:/x\" }}, {{ pid = 2 }}]\nsamples = \
         2\nunproven = \"accept\"\nlog = \"{{arg:--log}}\"\nafter = [\"first\"]\n\
         [[group.confirm]]\nhttp = \"https://{{listen}}/m\"\nhost = \"a.b\"\nca = \
         \"/ca\"\ninsecure = true\nstatus = 503\nauth_file = \"/a\"\nclient_cert = \
         \"/c\"\nclient_key = \"/k\"\nread = 'metric:n{{ok=\"1\"}}'\nincreased = true\n\
         [[group.confirm]]\nexec = [\"a\"]\nread = \"exit\"\nequals = \
         \"0\"\n[[group.confirm]]\nexec = [\"a\"]\nafter_signal = true\n\
         [[group.confirm]]\nworkers = true\nreplaced = true\n[[group.confirm]]\nlistener = \
         true\nreplaced = true\n\
         [[group.confirm]]\nchildren = \"c\"\nreplaced = true\n\
         [[group.confirm]]\ntcp = \"{{listen}}\"\nregex = \"(.)\"\nmatches = \"a+\"\n\
         [[group.confirm]]\nlog = \"journal\"\nmatches = \"{{pid}}\"\n\
         [[group.confirm]]\nexec = [\"a\"]\ndecreased = true\n\
         [[group.reject]]\nlog = \"syslog:x\"\ncontains = \"no\"\n\
         [[group.reject]]\nhttp = \"http://{{listen}}/\"\nread = \"header:A\"\ncontains = \
         \"x\"\n[[group.reject]]\nhttp = \"http://x/\"\nread = \"json:/a\"\nchanged = true\n\
         [[group.reject]]\nhttp = \"http://x/\"\nread = \"status\"\nequals = \"1\"\n\
         [group.rollout]\nwaves = [{{ on = \"canary=yes\" }}, \"1\", \"0.5%\", \"100%\"]\n\
         spread = \"zone\"\napart = \"pair\"\nmax_failures = \
         \"25%\"\nmax_unresponsive = \
         2\nbake = \"1s\"\ngate = [\"g\"]\non_failure = \"stop\"\n"
    )
}

#[test]
fn every_kind_reads_back_as_the_same_group() {
    for kind in KINDS {
        assert_reads_back(&Fleet::of_kind(kind.name).unwrap().groups[0]);
    }
}

#[test]
fn a_group_with_every_key_reads_back_as_the_same() {
    let fleet = Fleet::parse(every_key().as_bytes(), Path::new("fleet.toml")).unwrap();
    let group = &fleet.groups[1];
    assert_reads_back(group);
    // Every key must be set in the text above, also one that is added later.
    let value = serde_json::to_value(group).unwrap();
    let unset =
        |value: &serde_json::Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let groups = value
        .as_object()
        .unwrap()
        .iter()
        .chain(value["matching"].as_object().unwrap())
        .chain(value["rollout"].as_object().unwrap());
    let groups = groups.chain(value["reading"].as_object().unwrap());
    assert_eq!(
        groups
            .filter(|(_, value)| unset(value))
            .map(|(key, _)| key)
            .collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}

#[test]
fn a_group_with_a_key_reads_back_as_the_same() {
    let text = "version = 1\n[[group]]\nkind = \"hello\"\nsource = \"exec://kv/a/b\"\n\
                [[group]]\nname = \"etcd\"\nkind = \"hello\"\nsource = \"etcd+https://h/a\"\n\
                [[group]]\nname = \"target\"\nkind = \"hello\"\nconfig = \"etcd+https://h/b\"\n\
                [[store]]\nurl = \"exec://kv/a\"\nget = [\"g\", \"{key}\"]\nrev = \"first_line\"\n\
                [[store]]\nurl = \"exec://kv\"\nget = [\"other\"]\n\
                [[store]]\nurl = \"etcd+https://h\"\nca = \"/ca\"\n\
                auth_file = \"{credentials}/a\"\ntimeout = \"2s\"\npoll = \"3s\"\n";
    let fleet = Fleet::parse(text.as_bytes(), Path::new("fleet.toml")).unwrap();
    fleet.groups.iter().for_each(assert_reads_back);
    let key = |index: usize| {
        let source: &ContentSource = fleet.groups[index].source.as_ref().unwrap();
        source.key().unwrap()
    };
    let commands = key(0).access.commands.as_ref().unwrap();
    assert_eq!(
        (commands.key.as_str(), commands.get[0].as_str()),
        ("b", "g")
    );
    assert_eq!(key(1).access.timeout.as_secs(), 2);
    let target = fleet.groups[2].key().unwrap();
    assert_eq!(target.access, key(1).access);
    assert!(target.needs_credentials());
    let over = ["{exe}", "check", "{opt:--config}", "--over", "{candidate}"];
    assert_eq!(fleet.groups[2].validate, over);
    // A journal of an earlier version has a path as a text.
    let mut old = serde_json::to_value(&fleet.groups[0]).unwrap();
    old["source"] = "{config}.new".into();
    let old: Group = serde_json::from_value(old).unwrap();
    assert_eq!(old.source, Some(ContentSource::Path("{config}.new".into())));
}

#[test]
fn a_group_of_an_earlier_version_has_no_keys_about_hosts() {
    let text = "version = 1\n[[group]]\nkind = \"hello\"\n";
    let fleet = Fleet::parse(text.as_bytes(), Path::new("fleet.toml")).unwrap();
    let mut old = serde_json::to_value(&fleet.groups[0]).unwrap();
    assert_eq!(old["rollout"]["waves"], serde_json::json!(["1", "100%"]));
    for key in ["hosts", "per_host"] {
        assert!(old.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    for key in ["spread", "apart"] {
        let rollout = old["rollout"].as_object_mut().unwrap();
        assert!(rollout.remove(key).is_some(), "{key}");
    }
    let old: Group = serde_json::from_value(old).unwrap();
    assert_eq!(old, fleet.groups[0]);
}
