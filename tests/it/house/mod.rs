//! The drawing at the top of `src/lib.rs`: an import goes down, never up, and never back.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::source::{Sources, files, is_test};

mod source;
mod words;

/// Rooms from the top to the bottom; those of one line do not see each other.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["watch", "agent"],
    &[
        "broadcast",
        "resume",
        "diff",
        "status",
        "doctor",
        "serve",
        "history",
        "show",
        "forget",
        "reach",
    ],
    &["execute"],
    &["engine", "report"],
    &["hosts"],
    &["session"],
    &["plan"],
    &["host"],
    &["check"],
    &["runs"],
    &["change"],
    &["step"],
    &["protocol"],
    &["event"],
    &["kernel", "waves"],
    &["fleet"],
    &["assertion"],
    &["tree"],
    &["config"],
    &["inventory"],
    &["diagnostic", "identity", "self_report", "trust", "runtime"],
    &["screen", "exact", "names", "refusal"],
];

/// What is drawn inside one line: `diff` shows in lines what `status` reads.
const BESIDE: &[(&str, &str)] = &[("diff", "status")];

/// The rooms of `host`, each with the others that it may import.
const HOST: &[(&str, &[&str])] = &[
    ("parallel", &[]),
    ("proc", &[]),
    ("exec", &["proc"]),
    ("net", &["proc", "exec"]),
    ("store", &["proc", "exec", "net"]),
    ("target", &["proc", "exec", "store"]),
    ("discover", &["parallel", "proc", "exec", "net"]),
    (
        "validate",
        &["parallel", "proc", "exec", "target", "discover"],
    ),
    ("probe", &["parallel", "proc", "exec", "net", "discover"]),
    (
        "reload",
        &[
            "parallel", "proc", "exec", "net", "target", "discover", "probe",
        ],
    ),
    (
        "local",
        &[
            "parallel", "proc", "exec", "net", "store", "target", "discover", "validate", "probe",
            "reload",
        ],
    ),
];

/// The most lines of a file.
const MOST_OF_A_FILE: usize = 450;

/// The most lines of a function.
const MOST_OF_A_FUNCTION: usize = 80;

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Whether a file of the module `from` may import one of `to`.
fn may_import(from: &[String], to: &[String]) -> bool {
    let rank = |name: &String| {
        FLOORS
            .iter()
            .position(|rooms| rooms.contains(&name.as_str()))
            .unwrap_or_else(|| panic!("`{name}` is not in the drawing"))
    };
    let (mine, other) = (&from[0], &to[0]);
    if mine != other {
        return rank(other) > rank(mine) || BESIDE.contains(&(mine, other));
    }
    let room = |module: &[String]| {
        (module[0] == "host")
            .then(|| module.get(1).cloned())
            .flatten()
    };
    match (room(from), room(to)) {
        (Some(from), Some(to)) if from != to => HOST
            .iter()
            .any(|(name, may)| *name == from && may.contains(&to.as_str())),
        _ => true,
    }
}

#[test]
fn no_file_imports_one_of_a_room_above() {
    let sources = Sources::read(&src());
    let mut seen = 0;
    for (from, all) in sources.imports() {
        for to in all
            .into_iter()
            .filter(|to| from[0] != "lib" && to[0] != "lib")
        {
            seen += 1;
            assert!(
                may_import(from, to),
                "`{}` imports `{}`, which is above or beside it",
                from.join("::"),
                to.join("::")
            );
        }
    }
    assert!(seen > 500, "only {seen} imports were found");
}

#[test]
fn a_room_sees_what_is_below_it_alone() {
    let may = |from: &str, to: &str| {
        let names = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
        may_import(&names(from), &names(to))
    };
    for (from, to) in [
        ("cli::past", "runs"),
        ("engine", "plan"),
        ("host::net::http", "host::exec::gate"),
        ("host::net::http", "host::net::tls"),
        ("host", "host::local"),
    ] {
        assert!(may(from, to), "{from} {to}");
    }
    for (from, to) in [
        ("runs", "cli"),
        ("plan", "engine"),
        ("engine", "report"),
        ("host::exec::run", "host::net::http"),
        ("host::target", "host::discover"),
    ] {
        assert!(!may(from, to), "{from} {to}");
    }
}

#[test]
fn every_room_of_host_is_in_the_table() {
    let sources = Sources::read(&src());
    let rooms: BTreeSet<&str> = sources
        .0
        .keys()
        .filter(|module| module[0] == "host")
        .filter_map(|module| Some(module.get(1)?.as_str()))
        .collect();
    assert_eq!(rooms, HOST.iter().map(|(name, _)| *name).collect());
}

/// The first circle that `imports` has, as the files in it.
fn circle<'a>(
    imports: &BTreeMap<&'a Vec<String>, BTreeSet<&'a Vec<String>>>,
) -> Option<Vec<&'a Vec<String>>> {
    // What imports nothing that is left is in no circle.
    let mut left: BTreeMap<_, BTreeSet<_>> = imports.clone();
    loop {
        let done: Vec<&Vec<String>> = left
            .iter()
            .filter(|(_, to)| to.iter().all(|to| !left.contains_key(*to)))
            .map(|(from, _)| *from)
            .collect();
        if done.is_empty() {
            break;
        }
        done.into_iter().for_each(|from| drop(left.remove(from)));
    }
    let mut path = vec![*left.keys().next()?];
    loop {
        let next = *left[path[path.len() - 1]]
            .iter()
            .find(|to| left.contains_key(**to))?;
        if let Some(at) = path.iter().position(|one| *one == next) {
            return Some(path.split_off(at));
        }
        path.push(next);
    }
}

#[test]
fn no_file_is_imported_by_one_that_it_imports() {
    let sources = Sources::read(&src());
    let found = circle(&sources.imports());
    let found = found.map(|all| {
        all.iter()
            .map(|module| module.join("::"))
            .collect::<Vec<_>>()
    });
    assert_eq!(found, None);
}

#[test]
fn a_circle_is_found() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| vec![name.to_owned()]);
    let mut imports = BTreeMap::from([
        (&a, BTreeSet::from([&b])),
        (&b, BTreeSet::from([&c, &d])),
        (&c, BTreeSet::from([&d])),
        (&d, BTreeSet::new()),
    ]);
    assert_eq!(circle(&imports), None);
    imports.insert(&c, BTreeSet::from([&b]));
    assert_eq!(circle(&imports), Some(vec![&b, &c]));
}

#[test]
fn no_file_and_no_function_grows_too_long() {
    for source in Sources::read(&src()).0.values() {
        assert!(
            source.lines <= MOST_OF_A_FILE,
            "{} has {} lines",
            source.file.display(),
            source.lines
        );
        for (name, lines) in &source.functions {
            assert!(
                *lines <= MOST_OF_A_FUNCTION,
                "`{name}` in {} has {lines} lines",
                source.file.display()
            );
        }
    }
}

#[test]
fn no_error_is_a_text_where_another_file_sees_it() {
    for source in Sources::read(&src()).0.values() {
        assert!(
            source.text_errors.is_empty(),
            "{}: {:?} fail with a `String`: an error has parts, and a type of its room",
            source.file.display(),
            source.text_errors
        );
    }
}

/// The part of a file that is no test.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

#[test]
fn one_room_alone_prints() {
    let src = src();
    let prints = |text: &str| {
        let ways = [
            "println!",
            "print!(",
            "dbg!(",
            "io::stdout",
            "io::stderr",
            "stdio::stdout",
            "stdio::stderr",
            "/dev/stdout",
            "/dev/stderr",
            "/dev/tty",
        ];
        let lines = without_tests(text)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines
            .filter(|line| ways.iter().any(|way| line.contains(way)))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let is_screen =
        |file: &Path| file.starts_with(src.join("screen")) || file == src.join("screen.rs");
    let (screen, others): (Vec<_>, Vec<_>) = files(&src)
        .into_iter()
        .filter(|file| !is_test(file))
        .partition(|file| is_screen(file));
    for file in others {
        let found = prints(&std::fs::read_to_string(&file).unwrap());
        assert!(
            found.is_empty(),
            "{} prints, and `screen` alone does: {found:?}",
            file.display()
        );
    }
    assert!(
        screen
            .iter()
            .any(|file| !prints(&std::fs::read_to_string(file).unwrap()).is_empty()),
        "the search finds what it looks for"
    );
}
