//! Commands in the syntax of a shell.

use std::path::Path;

use super::assume::own;
use crate::identity::Credentials;

/// Returns `argv` quoted for a shell.
pub(crate) fn quoted(argv: &[String]) -> String {
    let plain = |arg: &String| {
        !arg.is_empty()
            && arg
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c))
    };
    argv.iter()
        .map(|arg| {
            if plain(arg) {
                arg.clone()
            } else {
                format!("'{}'", arg.replace('\'', "'\\''"))
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the shell command that starts `argv` in `cwd` with `credentials`: through `setpriv` if
/// they are of another user.
///
/// None if the program would have more capabilities than before. A directory of another user is
/// entered as that user, because it may be a link.
pub(crate) fn typed(argv: &[String], credentials: &Credentials, cwd: &Path) -> Option<String> {
    let own = own().ok()?;
    let cwd = cwd.display().to_string();
    if own.uid() == credentials.uid() {
        let gains = credentials.uid() == 0
            && own.permitted & !(credentials.permitted & credentials.bounding) != 0;
        return (!gains).then(|| format!("cd {} && {}", quoted(&[cwd]), quoted(argv)));
    }
    let groups: Vec<String> = credentials.groups.iter().map(u32::to_string).collect();
    let mut setpriv: Vec<String> = [
        "setpriv",
        "--reuid",
        &credentials.uid().to_string(),
        "--regid",
        &credentials.gid().to_string(),
    ]
    .map(str::to_owned)
    .into();
    if groups.is_empty() {
        setpriv.push("--clear-groups".into());
    } else {
        setpriv.extend(["--groups".into(), groups.join(",")]);
    }
    setpriv.extend(["--", "env", "-C", &cwd].map(str::to_owned));
    setpriv.extend(argv.iter().cloned());
    Some(quoted(&setpriv))
}
