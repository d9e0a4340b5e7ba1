//! The rows of a report, from those of the hosts.

use crate::{
    event::{At, Event, Instance, TargetReport, Verdict},
    inventory::HostName,
    protocol::HostRows,
    report::RunReport,
};

/// The rows of all hosts of a run, each of which names its host.
#[derive(Debug, Default)]
pub(super) struct Rows {
    targets: Vec<TargetReport>,
    /// The instances, host by host.
    pub(super) instances: Vec<Instance>,
    notes: Vec<At<Event>>,
}

impl Rows {
    /// Returns the rows of one host.
    pub(super) fn of(name: &HostName, of_host: HostRows) -> Self {
        let mut rows = Self::default();
        rows.add(name, of_host);
        rows
    }

    /// Adds the rows of a host.
    pub(super) fn add(&mut self, name: &HostName, of_host: HostRows) {
        let HostRows {
            targets,
            instances,
            notes,
        } = of_host;
        self.targets.extend(targets.into_iter().map(|mut target| {
            target.host = name.clone();
            target
        }));
        self.instances
            .extend(instances.into_iter().map(|mut instance| {
                instance.host = name.clone();
                instance
            }));
        self.notes.extend(notes.into_iter().map(|event| At {
            event,
            host: name.clone(),
        }));
    }

    /// Returns the report of these rows.
    pub(super) fn report(self, verdict: Verdict, reason: String) -> RunReport {
        RunReport {
            notes: self.notes,
            ..RunReport::new(verdict, reason, self.targets, self.instances)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::event::Instance;

    #[test]
    fn a_note_of_another_host_is_reported_with_its_name() {
        let name = HostName::new("edge-1").unwrap();
        let note = Event::NotKept {
            why: "no room".into(),
        };
        let of_host = HostRows {
            notes: vec![note.clone()],
            instances: vec![Instance::new("web", 1, 1)],
            ..HostRows::default()
        };
        let mut rows = Rows::default();
        rows.add(&HostName::local(), HostRows::default());
        rows.add(&name, of_host);
        let report = rows.report(Verdict::Converged, String::new());
        let notes: Vec<(&HostName, &Event)> = report
            .notes
            .iter()
            .map(|note| (&note.host, &note.event))
            .collect();
        assert_eq!(notes, [(&name, &note)]);
        assert_eq!(report.instances[0].host, name);
    }
}
