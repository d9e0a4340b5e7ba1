//! Commands as a person types them.

use std::path::Path;

use super::drop::own;
use crate::identity::Credentials;

/// As a shell reads it.
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

/// What starts `argv` in `cwd` as `person`: as the person at the terminal where it is the same,
/// else by `setpriv`. None where it would have more rights than it had. Another user's directory is
/// entered as that user, which may have put a link there.
pub(crate) fn typed(argv: &[String], person: &Credentials, cwd: &Path) -> Option<String> {
    let own = own().ok()?;
    let cwd = cwd.display().to_string();
    if own.uid() == person.uid() {
        let more = person.uid() == 0 && own.permitted & !(person.permitted & person.bounding) != 0;
        return (!more).then(|| format!("cd {} && {}", quoted(&[cwd]), quoted(argv)));
    }
    let groups: Vec<String> = person.groups.iter().map(u32::to_string).collect();
    let mut setpriv: Vec<String> = [
        "setpriv",
        "--reuid",
        &person.uid().to_string(),
        "--regid",
        &person.gid().to_string(),
    ]
    .map(str::to_owned)
    .into();
    match groups.is_empty() {
        true => setpriv.push("--clear-groups".into()),
        false => setpriv.extend(["--groups".into(), groups.join(",")]),
    }
    setpriv.extend(["--", "env", "-C", &cwd].map(str::to_owned));
    setpriv.extend(argv.iter().cloned());
    Some(quoted(&setpriv))
}
