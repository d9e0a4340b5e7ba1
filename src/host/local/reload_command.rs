//! Conditions that the command of a group must meet before it makes an instance reload.

use std::collections::BTreeMap;

use nix::unistd::{Uid, geteuid};

use crate::{
    event::{Abort, Verdict},
    fleet::{Group, Trigger, option_of, placeholder, value_of},
    host::{
        exec::{
            Unusable,
            placeholders::{NoValue, held},
            quoted, usable,
        },
        reload::command,
        validate::title::{self, Arguments},
    },
    identity::Sees,
    refusal::Refusal,
    step::PlannedInstance,
};

/// Why the command of a group cannot make an instance reload. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandReason {
    #[error(
        "has a title for its command line, which hides the arguments that {0} needs, or the \
         borders between them"
    )]
    HiddenArguments(String),
    #[error("has no value for {command}: {why}")]
    NoValue { command: String, why: NoValue },
    #[error("runs as uid {uid}, and this user may not run {command} as that")]
    OtherUser { uid: u32, command: String },
    #[error("reloads by `{command}`, which cannot be run: {why}")]
    Unusable { command: String, why: Unusable },
}

/// Checks that the command of its group can be run for the instance. An instance that reloads on a
/// signal passes.
///
/// # Errors
/// Fails with the first reason why it cannot.
pub(crate) fn check(planned: &PlannedInstance) -> Result<(), Refusal<CommandReason>> {
    let Trigger::Command(argv) = planned.group.trigger() else {
        return Ok(());
    };
    let shown = || planned.group.trigger().to_string();
    let uids = planned.identity.person.uids;
    if !geteuid().is_root() && uids.iter().any(|uid| Uid::from_raw(*uid) != geteuid()) {
        let uid = planned.identity.person.uid();
        let why = CommandReason::OtherUser {
            uid,
            command: shown(),
        };
        return Err(Refusal::from(why).with_hint("run hello as root"));
    }
    if uses_arguments(argv) && title::arguments(planned) != Arguments::Kept {
        let why = Refusal::from(CommandReason::HiddenArguments(shown()));
        return Err(why.with_hint("write the values into `reload_by`"));
    }
    let filled = command::filled(planned).map_err(|why| CommandReason::NoValue {
        command: shown(),
        why,
    })?;
    // The files of another mount namespace or root are checked when the command is run.
    let is_elsewhere = planned.identity.sees == Sees::Another;
    match filled.first() {
        Some(program) if !is_elsewhere && *program != held(&planned.identity).to_string_lossy() => {
            let as_root = planned.identity.person.has_root();
            usable(program, &planned.cwd, as_root).map_err(|why| {
                let command = quoted(&filled);
                CommandReason::Unusable { command, why }.into()
            })
        }
        _ => Ok(()),
    }
}

/// Tells whether a placeholder of `argv` stands for arguments of the process.
fn uses_arguments(argv: &[String]) -> bool {
    let is_one =
        |name: &str| name == "args" || option_of(name).is_some() || value_of(name).is_some();
    argv.iter().any(|word| placeholders_of(word).any(is_one))
}

/// Iterates over the names of the placeholders in a word.
fn placeholders_of(word: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(placeholder(word), |(_, _, after)| placeholder(after))
        .map(|(_, name, _)| name)
}

/// Tells whether the command of a group is the same for all of its instances, whatever their values
/// are.
pub(crate) fn is_same_for_all(group: &Group) -> bool {
    match group.trigger() {
        Trigger::Signal(_) => false,
        Trigger::Command(argv) => argv
            .iter()
            .all(|word| placeholders_of(word).all(|name| name == "exe")),
    }
}

/// Returns why instances of one group are not told apart by its command: it would make the same one
/// reload for each of them. None if there are no such instances.
pub(crate) fn indistinct<'a>(members: impl Iterator<Item = &'a PlannedInstance>) -> Option<Abort> {
    let mut asked: BTreeMap<(&str, Vec<String>), Vec<i32>> = BTreeMap::new();
    for member in members {
        if let Trigger::Command(_) = member.group.trigger()
            && let Ok(argv) = command::filled_by_path(member)
        {
            let group = member.instance.group.as_str();
            asked
                .entry((group, argv))
                .or_default()
                .push(member.instance.pid);
        }
    }
    let ((group, argv), pids) = asked.into_iter().find(|(_, pids)| pids.len() > 1)?;
    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
    Some(Abort::new(
        Verdict::Usage,
        format!(
            "group `{group}` reloads by `{}`, which is the same command for pids {}: it would ask \
             one of them each time; write a placeholder into `reload_by` that tells them apart, \
             such as {{pid}}, {{listen}} or {{config}}",
            quoted(&argv),
            pids.join(", ")
        ),
    ))
}
