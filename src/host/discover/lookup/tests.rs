use super::*;

#[test]
fn what_is_compiled_in_is_the_word_behind_a_text() {
    for (output, text, value) in [
        (
            "configure arguments: --with-cc-opt='-ffile-prefix-map=/b --prefix=/p' \
             --conf-path=/etc/n.conf --x",
            "--conf-path=",
            Some("/etc/n.conf"),
        ),
        (
            "--with-cc-opt='-O2 -ffile--prefix=/b' --prefix=/p",
            "--prefix=",
            Some("/p"),
        ),
        (
            "  --web.config.file=\"\"\n  --config.file=\"a b.yml\"  \n",
            "--config.file=",
            Some("a b.yml"),
        ),
        (
            "file (defaults to /etc/d.conf).",
            "(defaults to",
            Some("/etc/d.conf"),
        ),
        (
            "\tConfig file:\t\t/etc/r.conf\n\tPID",
            "Config file:",
            Some("/etc/r.conf"),
        ),
        ("--conf-path=", "--conf-path=", None),
        ("nothing", "--conf-path=", None),
    ] {
        assert_eq!(behind(output, text).as_deref(), value, "{output}");
    }
}
