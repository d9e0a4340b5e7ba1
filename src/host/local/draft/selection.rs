//! The name, `match` and `user` of a group. They select the process and its siblings alone, as a
//! scan of this host shows.

use std::collections::BTreeSet;

use glob::Pattern;

use super::{
    error::NoDraft,
    fact::{About, Fact, Source},
    program::Program,
    service::Services,
    text::{GroupText, list, one_or_list, quoted},
};
use crate::{
    fleet::{Fleet, FleetError, Group},
    host::discover::{Membership, Scan, found::Found, title::Telling},
    names,
    refusal::Refusal,
};

/// The selection of a process and its siblings.
#[derive(Debug)]
pub(super) struct Selection {
    name: String,
    /// The inline table of `match`.
    matching: String,
    /// What `match` takes from the process.
    why: String,
    /// Empty where it is the caller.
    pub(super) users: Vec<String>,
    /// The processes that the process takes the signal for.
    pub(super) workers: Vec<i32>,
    /// Other leaders of the same service.
    siblings: Vec<i32>,
    /// Leaders of the same program that are not selected.
    others: Vec<i32>,
    /// Leaders of the same program that no key distinguishes.
    excess: Vec<i32>,
}

/// One spelling of `match`.
struct Spelling {
    table: String,
    why: String,
}

impl Selection {
    /// Chooses the first spelling of `match` that selects the process and its siblings alone.
    ///
    /// # Errors
    /// Fails if none selects the process, or if another process takes the signal for it.
    pub(super) async fn of(
        program: &Program<'_>,
        services: &Services,
        scan: &Scan,
        taken: &[&str],
    ) -> Result<Self, Refusal<NoDraft>> {
        let pid = program.found.pid;
        let unit = services.unit.as_deref();
        let base = Spelling::of(program)?;
        let mut selection = Self {
            name: free_name(&program.name(), taken),
            matching: base.table.clone(),
            why: base.why.clone(),
            users: program.users(),
            workers: Vec::new(),
            siblings: Vec::new(),
            others: Vec::new(),
            excess: Vec::new(),
        };
        let group = selection.group("").map_err(NoDraft::Invalid)?;
        selection.workers = match scan.membership(&group, pid).await {
            Membership::Leads(_, workers) => workers,
            membership => return Err(not_led(membership)),
        };
        let all = scan.find(&group).await.found;
        let (same, others): (Vec<&Found>, Vec<&Found>) = all
            .iter()
            .partition(|other| is_sibling(program, unit, other));
        let wanted: BTreeSet<i32> = same.iter().map(|found| found.pid).collect();
        selection.siblings = wanted.iter().copied().filter(|own| *own != pid).collect();
        if others.is_empty() {
            return Ok(selection);
        }
        for spelling in base.narrower(program, unit, &others) {
            selection.matching = spelling.table;
            selection.why = spelling.why;
            let Ok(group) = selection.group("") else {
                continue;
            };
            let found = scan.find(&group).await.found;
            if found.iter().map(|found| found.pid).collect::<BTreeSet<_>>() == wanted {
                selection.others = others.iter().map(|found| found.pid).collect();
                return Ok(selection);
            }
        }
        selection.matching = base.table;
        selection.why = base.why;
        selection.excess = others.iter().map(|found| found.pid).collect();
        Ok(selection)
    }

    /// Returns the group with further lines.
    ///
    /// # Errors
    /// Fails if a line is not valid.
    pub(super) fn group(&self, lines: &str) -> Result<Group, FleetError> {
        let user = if self.users.is_empty() {
            String::new()
        } else {
            format!("user = {}\n", one_or_list(&self.users))
        };
        parsed(&format!(
            "[[group]]\nname = {}\nmatch = {}\n{user}reloads = true\nconfirm = []\n{lines}",
            quoted(&self.name),
            self.matching
        ))
    }

    /// Writes its keys, and what is known of related processes.
    pub(super) fn write(&self, text: &mut GroupText, facts: &mut Vec<Fact>) {
        let why = "the name of its program";
        text.key("name", &quoted(&self.name), Source::Guessed, why);
        text.key("match", &self.matching, Source::Seen, &self.why);
        if !self.excess.is_empty() {
            let pids = names::pids(&self.excess);
            text.note(&format!(
                "this matches other services of the same program too (pid {pids}): add `args`, \
                 `unit` or `port` to `match`"
            ));
        }
        if !self.users.is_empty() {
            let why = "the users that it runs as";
            text.key("user", &one_or_list(&self.users), Source::Seen, why);
        }
        let mut add = |pids: &[i32], what: &str| {
            if !pids.is_empty() {
                let detail = format!("{what}: pid {}", names::pids(pids));
                facts.push(Fact::seen(About::Relatives, detail));
            }
        };
        add(&self.workers, "takes the signal for its workers");
        add(&self.siblings, "siblings of the same service");
        let apart: Vec<i32> = self.others.iter().chain(&self.excess).copied().collect();
        add(&apart, "the same program runs in other services");
    }
}

impl Spelling {
    /// Returns the first spelling: executable, script, and the arguments where only they tell what
    /// an interpreter runs.
    fn of(program: &Program<'_>) -> Result<Self, NoDraft> {
        let exe = program.exe.to_string_lossy();
        let mut keys = vec![format!("exe = {}", quoted(&Pattern::escape(&exe)))];
        let mut why = "its executable".to_owned();
        if let Some(script) = &program.script {
            keys.push(format!("script = {}", quoted(&Pattern::escape(script))));
            why.push_str(" and the script that it runs");
        } else if program.is_interpreter {
            let args = &program.found.args;
            if args.is_empty() || program.line.rewritten {
                return Err(NoDraft::NoScript);
            }
            keys.push(format!("args = {}", globs(args)));
            why.push_str(" and its arguments");
        }
        Ok(Self {
            table: format!("{{ {} }}", keys.join(", ")),
            why,
        })
    }

    /// Returns spellings that may exclude `others`: by the unit, by an argument that only this
    /// service has, by all of these.
    fn narrower(&self, program: &Program<'_>, unit: Option<&str>, others: &[&Found]) -> Vec<Self> {
        let with = |key: String, why: &str| Self {
            table: format!("{}, {key} }}", self.table.trim_end_matches(" }")),
            why: format!("{}, and {why}", self.why),
        };
        let mut spellings = Vec::new();
        if let Some(unit) = unit {
            spellings.push(with(format!("unit = {}", quoted(unit)), "its unit"));
        }
        if program.found.telling != Telling::Arguments || self.table.contains("args = ") {
            return spellings;
        }
        let is_own = |word: &&String| !others.iter().any(|other| other.args.contains(word));
        let own: Vec<&String> = program.found.args.iter().filter(is_own).collect();
        let single = own.iter().map(|word| vec![*word]);
        let all = (own.len() > 1).then(|| own.clone());
        let args = single.chain(all);
        spellings.extend(args.map(|words| {
            let args = format!("args = {}", globs(&words));
            with(args, "what only its command line has")
        }));
        spellings
    }
}

/// A list of globs that fit exactly these words.
fn globs<S: AsRef<str>>(words: &[S]) -> String {
    let globs = words.iter().map(|word| Pattern::escape(word.as_ref()));
    list(&globs.collect::<Vec<_>>())
}

/// Reads the text of a group.
///
/// # Errors
/// Fails if it is not valid.
pub(super) fn parsed(text: &str) -> Result<Group, FleetError> {
    let mut groups = Fleet::of_group(text)?.groups;
    groups
        .pop()
        .ok_or_else(|| FleetError::Fault("it has no group".to_owned()))
}

/// Returns why a process that matches takes no signal.
fn not_led(membership: Membership) -> Refusal<NoDraft> {
    match membership {
        Membership::Works(leader) => Refusal::from(NoDraft::Worker(leader)).with_hint(format!(
            "that one takes the signal for it: `hello doctor {leader} --group`"
        )),
        Membership::Leads(..) => NoDraft::Unmatched("is selected twice".to_owned()).into(),
        Membership::Refused(why) | Membership::Skipped(why) | Membership::NoMatch { why, .. } => {
            let Refusal { why, hint } = why.reported();
            let refusal = Refusal::from(NoDraft::Unmatched(why));
            match hint {
                Some(hint) => refusal.with_hint(hint),
                None => refusal,
            }
        }
    }
}

/// Tells whether another process of the program belongs to the same service: the same unit, or the
/// same command line of the same user.
fn is_sibling(program: &Program<'_>, unit: Option<&str>, other: &Found) -> bool {
    let own = program.found;
    if own.pid == other.pid {
        return true;
    }
    match (unit, Services::unit_of(other.pid)) {
        (Some(unit), Some(other)) => unit == other,
        (None, None) => own.args == other.args && own.uid == other.uid,
        _ => false,
    }
}

/// Returns the name, made of plain characters, or the first of its like that is not taken.
fn free_name(name: &str, taken: &[&str]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .collect();
    let is_free = |name: &String| !taken.contains(&name.as_str());
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    let mut all = std::iter::once(name.clone()).chain(numbered);
    all.find(is_free).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_free() {
        assert_eq!(free_name("x", &[]), "x");
        assert_eq!(free_name("x", &["x", "x-2", "y"]), "x-3");
        assert_eq!(free_name("a b\"\n", &[]), "a-b--");
    }
}
