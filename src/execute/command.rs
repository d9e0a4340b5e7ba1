//! The command line as a journal keeps it.

/// Returns the command line of this process, without the values of `--set`.
pub(super) fn command_line() -> Vec<String> {
    secretless(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()))
}

/// Removes the values of `--set` from a command line.
fn secretless(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_value = false;
    args.map(|arg| {
        let was_value = std::mem::replace(&mut is_value, arg == "--set");
        let pair = match arg.strip_prefix("--set=") {
            Some(pair) => Some(("--set=", pair)),
            None => was_value.then_some(("", arg.as_str())),
        };
        match pair {
            Some((option, pair)) => {
                format!("{option}{}=..", pair.split('=').next().unwrap_or_default())
            }
            None => arg,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_set_are_not_kept() {
        let args = [
            "hello",
            "broadcast",
            "--set",
            "a=b=c",
            "--set=d=e",
            "--reason",
            "f=g",
        ];
        assert_eq!(
            secretless(args.map(String::from).into_iter()),
            [
                "hello",
                "broadcast",
                "--set",
                "a=..",
                "--set=d=..",
                "--reason",
                "f=g"
            ]
        );
    }
}
