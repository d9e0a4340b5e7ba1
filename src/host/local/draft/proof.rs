//! What may show a reload. Only the operator knows that: the group has examples to uncomment.

use super::{log::LogDraft, selection::Selection, text::GroupText};

/// Writes that nothing shows a reload yet, and what may show one.
pub(super) fn write(
    selection: &Selection,
    log: Option<&LogDraft>,
    has_tcp: bool,
    text: &mut GroupText,
) {
    text.line(
        "confirm = []  # to type: nothing is known that shows a reload; replace this line by what \
         does, such as",
    );
    let example: &[&str] = if !selection.workers.is_empty() {
        &["workers = true", "replaced = true"]
    } else if has_tcp {
        &["http = \"http://{listen}/\"", "changed = true"]
    } else {
        &["exec = [\"COMMAND\", \"{config}\"]", "changed = true"]
    };
    text.line("# [[group.confirm]]");
    example
        .iter()
        .for_each(|line| text.line(&format!("# {line}")));
    if let Some(log) = log {
        log.write_reject(text);
    }
}
