//! Words of a command, quoted for a shell.

use std::{ffi::OsStr, fmt::Write as _, os::unix::ffi::OsStrExt};

/// Quotes `word` for a shell. A word of plain characters is unchanged. A word with control
/// characters or bytes that are not UTF-8 becomes `$'..'`, which bash, zsh and ksh read.
pub(crate) fn quote(word: impl AsRef<OsStr>) -> String {
    let bytes = word.as_ref().as_bytes();
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(b);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if super::line(text) == text => format!("'{}'", text.replace('\'', r"'\''")),
        _ => escaped(bytes),
    }
}

/// Returns `$'..'`, with each byte that is not printable ASCII as `\xNN`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::from("$'");
    for byte in bytes {
        match byte {
            b'\'' | b'\\' => _ = write!(text, "\\{}", char::from(*byte)),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => _ = write!(text, "\\x{byte:02x}"),
        }
    }
    text + "'"
}

/// Returns a number with its noun: `1 instance`, `2 instances`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure says so itself")]
    use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::Command};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_word_is_unchanged_and_any_other_is_quoted() {
        for (word, quoted) in [
            ("/etc/a.toml", "/etc/a.toml"),
            ("", "''"),
            ("/a b", "'/a b'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("~", "'~'"),
            ("a\nb", r"$'a\x0ab'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
        assert_eq!(
            [
                counted(0, "instance"),
                counted(1, "instance"),
                counted(2, "instance")
            ],
            ["0 instances", "1 instance", "2 instances"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn bash_reads_back_every_word(bytes in proptest::collection::vec(1..=255u8, 0..12)) {
            let word = OsString::from_vec(bytes);
            let read = Command::new("bash").args(["-c", &format!("printf %s \
                {}", quote(&word))]).output().unwrap();
            prop_assert_eq!(OsString::from_vec(read.stdout), word);
        }
    }
}
