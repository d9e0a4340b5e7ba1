//! The proof that a reload of a process would get.

use super::finding::{Finding, Topic};
use crate::{
    assertion::{Assertion, Expectation, Unresolved, entry_of},
    event::Proof,
    fleet::Speaks,
    host::reload::evidence::strongest_proof,
    names::json_word,
    refusal::Refusal,
    step::{Content, PlannedInstance},
};

/// Returns the strongest proof that the assertions would give for a config such as the one on the
/// disk.
pub(super) fn proof(planned: &PlannedInstance, disk: Option<&Content>) -> Finding {
    let group = &planned.group;
    if group.speaks == Speaks::Hello && !group.config.is_empty() {
        return Finding::good(
            Topic::Proof,
            format!("{}: {}", json_word(Proof::Exact), meaning(Proof::Exact)),
        );
    }
    let resolved: Result<Vec<Assertion>, Refusal<Unresolved>> = group
        .confirm
        .iter()
        .map(|assertion| assertion.resolved(disk.and_then(Content::file)))
        .collect();
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(why) => return Finding::note(Topic::Proof, why.to_string()),
    };
    // Another config changes an expectation that is taken from the config.
    let is_from_config = |index: usize| {
        group
            .confirm
            .get(index)
            .map(|assertion| &assertion.expectation)
            != resolved.get(index).map(|assertion| &assertion.expectation)
    };
    let unmet = |index: &usize| match &resolved[*index].expectation {
        Expectation::Equals(text) if !resolved[*index].source.is_log() => {
            let reading = planned.baseline.get(*index).and_then(Option::as_ref);
            reading.is_some_and(|reading| reading != text)
        }
        _ => false,
    };
    let is_alone_unmet = |index: &usize| entry_of(&resolved, *index).all(|other| unmet(&other));
    let unmet: Vec<usize> = (0..resolved.len()).filter(is_alone_unmet).collect();
    let source = |index: usize| resolved[index].source.describe(&planned.instance.endpoint);
    if let Some(index) = unmet.iter().copied().find(|index| is_from_config(*index)) {
        let text = format!(
            "{} does not read what the config on the disk says that it should",
            source(index)
        );
        return Finding::bad(Topic::Proof, text)
            .then("correct the assertion, or reload it on the config on the disk first");
    }
    let unmet = unmet.first().map_or(String::new(), |index| {
        format!(" (at the moment {} reads another value)", source(*index))
    });
    let strongest = strongest_proof(&resolved, &planned.baseline, is_from_config, true, |_| true);
    let meaning = match strongest {
        Proof::None if resolved.is_empty() => {
            "its group has no assertion, so that it ends as unconfirmed"
        }
        proof => meaning(proof),
    };
    let text = format!("{}: {meaning}{unmet}", json_word(strongest));
    if strongest == Proof::None {
        Finding::note(Topic::Proof, text).then("set what can be seen with [[group.confirm]]")
    } else {
        Finding::good(Topic::Proof, text)
    }
}

/// Returns what a proof shows.
fn meaning(proof: Proof) -> &'static str {
    match proof {
        Proof::Exact => "it reports the digest of exactly these bytes",
        Proof::Content => "it answers what the new config makes it answer",
        Proof::Reloaded => "it reports that it loaded a config after the signal",
        Proof::Workers => "its workers, or its listening socket, are new",
        Proof::None => "every assertion holds already",
    }
}
