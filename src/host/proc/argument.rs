//! One argument of a process: the value of an option, or the argument at a position.

use super::cmdline::option_value;

/// Returns the index of the argument that `{arg:NAME}` means if the name is a number: a position,
/// counted from 1.
pub(crate) fn place(name: &str) -> Option<usize> {
    name.parse::<usize>().ok()?.checked_sub(1)
}

/// Returns the value of the option `name`, or the argument at that position.
pub(crate) fn argument<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    match place(name) {
        Some(index) => args.get(index).map(String::as_str),
        None => option_value(args, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_named_by_its_option_or_its_position() {
        let args: Vec<String> = ["run", "-c", "a", "--7=b"].map(str::to_owned).to_vec();
        for (name, wanted) in [
            ("1", Some("run")),
            ("3", Some("a")),
            ("-c", Some("a")),
            ("--7", Some("b")),
            ("5", None),
            ("0", None),
            ("-d", None),
        ] {
            assert_eq!(argument(&args, name), wanted, "{name}");
        }
    }
}
