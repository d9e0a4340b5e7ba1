use super::*;

const SSHD: &str = "46DGQRTVdeiqrtb:C:c:E:f:g:h:k:o:p:u:";
const POSTGRES: &str = "B:bC:c:D:d:EeFf:h:ijk:lN:nOPp:r:S:sTt:v:W:";

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn values(line: &str, getopt: Option<&str>, repeated: Repeated, names: &[&str]) -> String {
    let args = words(line);
    match (Options {
        args: &args,
        getopt,
        repeated,
    })
    .given_values(names)
    {
        GivenOptions::Absent => "-".into(),
        GivenOptions::Value(value) => value,
        GivenOptions::Several(values) => values.join("+"),
        GivenOptions::Unclear(word) => format!("?{word}"),
    }
}

#[test]
fn letters_are_read_as_getopt_reads_them() {
    for (line, name, value) in [
        ("-D -f a", "-f", "a"),
        ("-Df a", "-f", "a"),
        ("-Def a", "-f", "a"),
        ("-Dfa/b", "-f", "a/b"),
        ("-fa", "-f", "a"),
        ("-f=a", "-f", "=a"),
        ("-f a -Df b", "-f", "b"),
        // The value of another option is none.
        ("-o -f a", "-f", "-"),
        ("-E x-f -D", "-f", "-"),
        ("-Df a -- -f b", "-f", "a"),
        ("-D -f", "-f", "?-f"),
        // A letter that is not known may take the rest of its word.
        ("-Zf a", "-f", "?-Zf"),
        ("-Z -f a", "-f", "a"),
        ("x -f a y", "-f", "a"),
        ("-oKey=v -f a", "Key", "v"),
    ] {
        assert_eq!(
            values(line, Some(SSHD), Repeated::Last, &[name]),
            value,
            "{line}"
        );
    }
}

#[test]
fn a_setting_is_assigned_by_an_option_or_a_long_option() {
    for (line, value) in [
        ("-D d -c config_file=/a", "/a"),
        ("-D d -cconfig_file=/a", "/a"),
        ("-D d --config-file=/a", "/a"),
        ("--config_file=/a -c Config_File=/b", "/b"),
        ("-c hba_file=/a -D d", "-"),
    ] {
        assert_eq!(
            values(
                line,
                Some(POSTGRES),
                Repeated::Last,
                &["config_file", "--config-file", "--config_file"]
            ),
            value,
            "{line}"
        );
    }
    assert_eq!(
        values(
            "--conf=/a",
            Some("hC:"),
            Repeated::Last,
            &["-C", "--conf-file"]
        ),
        "?--conf=/a"
    );
    assert_eq!(
        values(
            "--conf-file=/a -C /b",
            Some("hC:"),
            Repeated::Last,
            &["-C", "--conf-file"]
        ),
        "/b"
    );
}

#[test]
fn a_program_whose_options_are_words_has_no_letters() {
    for (line, value) in [
        ("-c a", "a"),
        ("--c=a", "a"),
        ("-c a -config b", "b"),
        ("-config a -c b", "b"),
        ("-sc a", "-"),
        ("-D", "-"),
        ("-c", "?-c"),
    ] {
        assert_eq!(
            values(
                line,
                Some(""),
                Repeated::Last,
                &["-c", "-config", "--config"]
            ),
            value,
            "{line}"
        );
    }
    assert_eq!(values("-f a -f b", Some(""), Repeated::All, &["-f"]), "a+b");
    assert_eq!(values("-f a -f a", Some(""), Repeated::All, &["-f"]), "a");
    assert_eq!(values("-f a -- b", Some(""), Repeated::All, &["-f"]), "?--");
    assert_eq!(values("-f a -f b", Some(""), Repeated::First, &["-f"]), "a");
}

#[test]
fn where_nothing_is_known_of_the_program_a_word_that_may_be_the_option_is_unclear() {
    for (line, name, value) in [
        ("-f a", "-f", "a"),
        ("-f a -f b", "-f", "b"),
        ("-f=a", "-f", "a"),
        ("-f/etc/a", "-f", "/etc/a"),
        ("-Df a", "-f", "?-Df"),
        ("-Df/etc/a", "-f", "?-Df/etc/a"),
        ("-fconf/a", "-f", "?-fconf/a"),
        ("-Df a -f b", "-f", "b"),
        ("-f b -Df a", "-f", "?-Df"),
        ("-foreground -x", "-f", "?-foreground"),
        ("-foreground -f a", "-f", "a"),
        ("-fname", "-f", "?-fname"),
        ("-dfname", "-f", "?-dfname"),
        ("--f a", "-f", "?--f"),
        ("-config a", "--config", "?-config"),
        ("-config=a", "--config", "?-config=a"),
        ("--c a", "--config", "?--c"),
        ("-conf a", "--config", "?-conf"),
        ("-c a", "--config", "-"),
        ("-x a", "--config", "-"),
        ("-Df", "-f", "-"),
        ("-Df -x", "-f", "-"),
        ("--conf a", "--config", "?--conf"),
        ("--config a --conf b", "--config", "?--conf"),
        ("@more", "-f", "?@more"),
        ("run -- sub -f a", "-f", "?-f"),
        ("-c config_file=/a", "config_file", "/a"),
        ("-cconfig_file=/a", "config_file", "/a"),
        ("x", "-f", "-"),
    ] {
        assert_eq!(values(line, None, Repeated::Last, &[name]), value, "{line}");
    }
    assert_eq!(
        values("-c a --config b", None, Repeated::Last, &["-c", "--config"]),
        "?-c and --config"
    );
    assert_eq!(
        values("-c a --config a", None, Repeated::Last, &["-c", "--config"]),
        "a"
    );
}

#[test]
fn unbundled_it_says_the_same() {
    let of = |line: &str| {
        unbundled(&words(line), SSHD).map_or_else(|| line.to_owned(), |args| args.join(" "))
    };
    assert_eq!(of("-Def a"), "-D -e -f a");
    assert_eq!(of("-De -fa -- -Df b"), "-D -e -f a -- -Df b");
    assert_eq!(of("-o -Df x"), "-o -Df x");
    assert_eq!(of("-DZf x"), "-DZf x");
    assert_eq!(
        unbundled(&words("-r514 -nr 5"), "r::n")
            .map(|args| args.join(" "))
            .as_deref(),
        Some("-r514 -n -r 5")
    );
}
