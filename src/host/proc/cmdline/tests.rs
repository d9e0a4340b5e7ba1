use super::*;

fn arguments(raw: &[u8]) -> Vec<String> {
    CommandLine::parse(raw).args
}

#[test]
fn options_are_found_in_every_spelling() {
    let value = |line: &str, option: &str| {
        option_value(&arguments(line.replace(' ', "\0").as_bytes()), option).map(str::to_owned)
    };
    assert_eq!(
        value("x serve --config a.toml ", "--config").as_deref(),
        Some("a.toml")
    );
    assert_eq!(
        value("x serve --config=a.toml", "--config").as_deref(),
        Some("a.toml")
    );
    assert_eq!(value("x -f/etc/a", "-f").as_deref(), Some("/etc/a"));
    assert_eq!(
        value("x -c config_file=/etc/a", "config_file").as_deref(),
        Some("/etc/a")
    );
    assert_eq!(value("x -config a", "-c"), None);
    assert_eq!(value("x serve --configs=a.toml --config", "--config"), None);
}

#[test]
fn a_rewritten_command_line_counts_by_its_words() {
    assert_eq!(
        arguments(b"nginx: master process nginx -c /a\0\0\0\0"),
        ["master", "process", "nginx", "-c", "/a"]
    );
    assert_eq!(arguments(b"/usr/bin/x\0a b\0"), ["a b"]);
    assert_eq!(arguments(b"/a b/x\0-c\0"), ["-c"]);
    assert!(arguments(b"").is_empty());
}

/// Executable, command line with `|` between the arguments, and the script in it.
const SCRIPTS: &[(&str, &str, Option<&str>)] = &[
    (
        "/usr/bin/python3.11",
        "/usr/bin/python3|/usr/bin/gunicorn|-c|conf.py|app",
        Some("/usr/bin/gunicorn"),
    ),
    (
        "/usr/bin/python3.11",
        "python3|-W|ignore|-X|dev|-u|app.py",
        Some("app.py"),
    ),
    (
        "/usr/bin/python3.11",
        "python3|-Wignore|-m|gunicorn|app",
        Some("gunicorn"),
    ),
    (
        "/usr/bin/python3.11",
        "python3|-um|gunicorn",
        Some("gunicorn"),
    ),
    (
        "/usr/bin/python3.11",
        "python3|-mgunicorn",
        Some("gunicorn"),
    ),
    ("/usr/bin/python3.11", "python3|-c|print()|gunicorn", None),
    ("/usr/bin/python3.11", "python3|-|gunicorn", None),
    (
        "/usr/bin/python3.11",
        "python3|--check-hash-based-pycs|always|--|app.py",
        Some("app.py"),
    ),
    (
        "/usr/bin/python3.11 (deleted)",
        "python3|app.py",
        Some("app.py"),
    ),
    (
        "/usr/bin/python3.11",
        "gunicorn: master [app]",
        Some("gunicorn"),
    ),
    (
        "/usr/bin/python3.11",
        "python3 /usr/bin/gunicorn -c x",
        Some("/usr/bin/gunicorn"),
    ),
    (
        "/usr/bin/perl",
        "perl|-MFoo::exec|-wT|-I|lib|starman|x",
        Some("starman"),
    ),
    ("/usr/bin/ruby3.1", "ruby|-W0|-r|bundler|puma", Some("puma")),
    (
        "/usr/bin/node",
        "node|--require|x.js|--max-old-space-size=9|server.js",
        Some("server.js"),
    ),
    ("/usr/bin/php8.2", "php|-d|a=b|-f|x.php", Some("x.php")),
    (
        "/usr/bin/java",
        "java|-Xmx1g|-Dfile=c|-cp|x:y|-jar|app.jar",
        Some("app.jar"),
    ),
    (
        "/usr/bin/java",
        "java|-cp|x|org.example.Main",
        Some("org.example.Main"),
    ),
    (
        "/usr/bin/bash",
        "/bin/bash|-o|pipefail|-eu|run.sh",
        Some("run.sh"),
    ),
    ("/bin/busybox", "sh|run.sh", Some("run.sh")),
    ("/usr/bin/bash", "bash", None),
    ("/usr/bin/vim", "vim|gunicorn", None),
    ("/usr/bin/pythonic", "pythonic|gunicorn", None),
];

#[test]
fn the_script_is_the_first_argument_that_is_no_option_of_the_interpreter() {
    for (exe, line, script) in SCRIPTS {
        let line = CommandLine::parse(format!("{}\0", line.replace('|', "\0")).as_bytes());
        assert_eq!(
            line.script(Path::new(exe), false),
            *script,
            "{exe} {line:?}"
        );
    }
}

#[test]
fn an_unknown_program_has_a_script_if_it_is_declared_an_interpreter() {
    let line = CommandLine::parse(b"own\0run.x\0");
    assert_eq!(line.script(Path::new("/opt/own"), false), None);
    assert_eq!(line.script(Path::new("/opt/own"), true), Some("run.x"));
}
