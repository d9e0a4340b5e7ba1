//! What came of `hello forget` on each host.

use super::{
    of_host::HostAnswer,
    options::Options,
    refusal::{Refusal, refusal},
};
use crate::{
    event::Verdict,
    hosts::{Absence, worst},
    inventory::HostName,
    names,
    protocol::KeptItem,
    runs, screen,
    step::short,
};

/// What came of the command on each host.
#[derive(Debug)]
pub(super) struct End {
    pub(super) item: KeptItem,
    /// Hosts that have removed it.
    pub(super) done: Vec<(HostName, HostAnswer)>,
    /// Hosts that do not have it.
    pub(super) unknown: Vec<HostName>,
    /// Hosts that were not asked to remove anything.
    pub(super) absent: Vec<Absence>,
    /// Hosts that were asked to remove it, and did not say that they have.
    pub(super) lost: Vec<Absence>,
    /// Hosts of the run that the operator did not select.
    pub(super) excluded: Vec<HostName>,
}

/// Returns the item as a sentence names it.
pub(super) fn described(item: &KeptItem) -> String {
    match item {
        KeptItem::Run(id) => format!("run {id}"),
        KeptItem::Sha256(sha256) => format!("sha256:{}", short(sha256)),
    }
}

fn listed<'a>(hosts: impl IntoIterator<Item = &'a HostName>) -> String {
    names::list(hosts, ", ", names::MOST)
}

fn tell(word: &str, text: &str) {
    screen::tell(&screen::worded(word, text));
}

impl End {
    /// Says for each host what came of it.
    pub(super) fn tell(&self) {
        let what = described(&self.item);
        if !self.done.is_empty() {
            let hosts = listed(self.done.iter().map(|(host, _)| host));
            let more = self.removed();
            tell("Forgotten", &format!("{what} on {hosts}{more}"));
        }
        if !self.unknown.is_empty() {
            let hosts = listed(&self.unknown);
            tell("Not known", &format!("{what} on {hosts}"));
        }
        for Absence { host, why, .. } in &self.absent {
            tell(
                "No answer",
                &format!("{host}: {why}; nothing was forgotten there"),
            );
        }
        for Absence { host, why, .. } in &self.lost {
            tell(
                "No answer",
                &format!("{host}: {why}; {what} may be kept there"),
            );
        }
    }

    /// Returns what was removed besides: contents of a run, or a content of runs.
    fn removed(&self) -> String {
        let answers = self.done.iter().map(|(_, answer)| answer);
        match &self.item {
            KeptItem::Run(_) => {
                let contents = answers.map(|answer| answer.contents).sum();
                let contents = screen::counted(contents, "content");
                format!(", and {contents} that nothing else needs")
            }
            KeptItem::Sha256(_) => {
                let runs = screen::counted(answers.map(|answer| answer.runs).sum(), "run");
                let proven = self.done.iter().filter(|(_, answer)| answer.proven);
                let proven: Vec<&HostName> = proven.map(|(host, _)| host).collect();
                let proven = if proven.is_empty() {
                    String::new()
                } else {
                    let hosts = listed(proven);
                    format!("; processes that run now were last proven on it on {hosts}")
                };
                format!(", of {runs}: `hello` cannot roll back to it there any more{proven}")
            }
        }
    }

    /// Removes the index of the run, unless a part of the run stays on a host.
    ///
    /// # Errors
    /// Fails if the index cannot be removed.
    pub(super) async fn close_index(&self, options: &Options) -> Result<(), Refusal> {
        let KeptItem::Run(id) = &self.item else {
            return Ok(());
        };
        let absent = self.absent.iter().chain(&self.lost);
        let absent = absent.map(|absence| &absence.host);
        let left: Vec<&HostName> = absent.chain(&self.excluded).collect();
        if !left.is_empty() {
            let hosts = listed(left);
            let text = format!("the index of run {id} on this machine: a part may stay on {hosts}");
            tell("Kept", &text);
            return Ok(());
        }
        let state = (options.state.as_path(), options.state_args.as_str());
        runs::forget_run(&options.state, id, options.open)
            .await
            .map_err(|why| refusal(why, state))?;
        tell(
            "Forgotten",
            &format!("the index of run {id} on this machine"),
        );
        Ok(())
    }

    /// Returns how the command ends, after a line that names the host which decides it.
    pub(super) fn verdict(&self) -> Verdict {
        let each = [worst(&self.absent), worst(&self.lost)];
        let is_away = |absence: &&Absence| absence.verdict == Verdict::Unreachable;
        let mut found = each.into_iter().flatten();
        let away = each.into_iter().flatten().find(is_away);
        let Some(Absence { host, verdict, why }) = away.or_else(|| found.next()) else {
            return Verdict::Converged;
        };
        let others = self.absent.len() + self.lost.len() - 1;
        let more = names::and_more(others);
        screen::tell(&screen::failure(&format!("{host}{more}: {why}")));
        *verdict
    }
}
