//! Lines that many hosts have in common, shown together.

use std::collections::HashMap;

use super::{
    hosts::of_hosts,
    lines::{EventLine, NamedProcess},
};
use crate::{event::processes, inventory::HostName};

/// The word, the group and the text that lines have in common. The group is that of a process,
/// which each line begins with.
type Common = (&'static str, Option<Option<String>>, String);

/// The host of a line, and the process that the line begins with.
type Subject = (HostName, Option<i32>);

/// Lines of many hosts, in the order of their first.
#[derive(Debug, Default)]
pub(super) struct GroupedLines {
    groups: Vec<(Common, Vec<Subject>)>,
    places: HashMap<Common, usize>,
}

impl GroupedLines {
    /// Adds the line of a host.
    pub(super) fn add(&mut self, host: &HostName, line: EventLine) {
        let EventLine {
            word,
            process,
            text,
        } = line;
        let (group, pid) = process
            .map(|NamedProcess { group, pid }| (group, pid))
            .unzip();
        let place = *self
            .places
            .entry((word, group, text))
            .or_insert_with_key(|common| {
                self.groups.push((common.clone(), Vec::new()));
                self.groups.len() - 1
            });
        self.groups[place].1.push((host.clone(), pid));
    }

    /// Removes all lines, and returns the word and the text of each group.
    pub(super) fn take(&mut self) -> Vec<(&'static str, String)> {
        let groups = std::mem::take(self).groups;
        groups
            .into_iter()
            .map(|(common, subjects)| (common.0, text(common, &subjects)))
            .collect()
    }
}

fn text((word, group, text): Common, subjects: &[Subject]) -> String {
    let Some(group) = group else {
        let hosts: Vec<&HostName> = subjects.iter().map(|(host, _)| host).collect();
        return of_hosts(&hosts, &text);
    };
    let all: Vec<(HostName, i32)> = subjects
        .iter()
        .filter_map(|(host, pid)| Some((host.clone(), (*pid)?)))
        .collect();
    if let [(host, pid)] = all.as_slice() {
        let process = Some(NamedProcess { group, pid: *pid });
        let line = EventLine {
            word,
            process,
            text,
        };
        return line.text_of(host);
    }
    let of = group.map_or(String::new(), |group| format!(" of {group}"));
    let text = text.trim_start_matches([':', ' ']);
    format!("{} processes{of}: {text}: {}", all.len(), processes(&all))
}
