//! What may show a reload. Only the operator knows that: the group has examples to uncomment.

use super::{
    fact::{About, Fact},
    files::OpenFiles,
    selection::Selection,
    text::GroupText,
};

/// The most logs that are named.
const MAX_LOGS: usize = 4;

/// Writes that nothing shows a reload yet, and what may show one.
pub(super) fn write(
    selection: &Selection,
    files: &OpenFiles,
    has_tcp: bool,
    text: &mut GroupText,
    facts: &mut Vec<Fact>,
) {
    for log in files.logs.iter().take(MAX_LOGS) {
        let detail = format!("{} is open for writing", log.display());
        text.note(&format!("its log: {detail}"));
        facts.push(Fact::seen(About::Log, detail));
    }
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
}
