//! A dry run as people read it on stdout.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    run_report::{AfterFailure, WaveReport},
    summary::Summary,
    text::{LISTED, instances, name},
};
use crate::{
    event::{
        FailureKind, Instance, Outcome, ReloadsBy, TargetKind, TargetReport, process, processes,
    },
    inventory::HostName,
    names,
    screen::{counted, line as plain, quoted},
    step::short,
};

/// Returns the text of a dry run. With `verbose`, every instance is a line.
pub(super) fn text(summary: &Summary, verbose: bool) -> String {
    let hosts = Hosts::of(summary);
    let targets = target_texts(&hosts, summary);
    let waves = summary.waves.iter().map(|w| wave_text(summary, w, verbose));
    let skipped = summary.instances.iter().filter(|i| i.wave == 0);
    let skipped = skipped.map(|i| skipped_text(&hosts, i));
    targets.chain(waves).chain(skipped).collect()
}

/// Instances and targets by host: a target is read by instances of its own host alone.
#[derive(Debug, Default)]
struct Hosts<'a>(BTreeMap<&'a HostName, (Vec<&'a Instance>, Vec<&'a TargetReport>)>);

impl<'a> Hosts<'a> {
    fn of(summary: &'a Summary) -> Self {
        let mut hosts = Self::default();
        for instance in &summary.instances {
            hosts.0.entry(&instance.host).or_default().0.push(instance);
        }
        for target in &summary.targets {
            hosts.0.entry(&target.host).or_default().1.push(target);
        }
        hosts
    }

    fn instances(&self, host: &HostName) -> &[&'a Instance] {
        self.0.get(host).map_or(&[], |(instances, _)| instances)
    }

    fn targets(&self, host: &HostName) -> &[&'a TargetReport] {
        self.0.get(host).map_or(&[], |(_, targets)| targets)
    }
}

/// Returns a text for each target. Targets of several hosts that have a text in common share it.
fn target_texts(hosts: &Hosts<'_>, summary: &Summary) -> impl Iterator<Item = String> {
    let mut texts: Vec<(String, Vec<&HostName>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for target in &summary.targets {
        let text = target_text(hosts, summary, target);
        let place = if target.host.is_local() {
            None
        } else {
            places.get(&text).copied()
        };
        let place = place.unwrap_or_else(|| {
            places.insert(text.clone(), texts.len());
            texts.push((text, Vec::new()));
            texts.len() - 1
        });
        texts[place].1.push(&target.host);
    }
    texts
        .into_iter()
        .map(|(text, hosts)| match hosts.as_slice() {
            [host] if host.is_local() => text,
            [host] => format!("{host}: {text}"),
            hosts => format!(
                "{} ({}): {text}",
                counted(hosts.len(), "host"),
                names::list(hosts, ", ", names::MOST)
            ),
        })
}

fn target_text(hosts: &Hosts<'_>, summary: &Summary, target: &TargetReport) -> String {
    let is_on_disk = target.disk.as_ref() == Some(&target.to);
    let content = match &target.from {
        _ if is_on_disk => format!("sha256:{} is on the disk already", short(&target.to)),
        from => format!(
            "sha256:{} -> sha256:{}",
            from.as_deref().map_or("?", short),
            short(&target.to)
        ),
    };
    let path = plain(&target.path.to_string_lossy()).into_owned();
    let mut text = format!("{path}: {content}{}\n", rollback_text(summary, target));
    if let Some(source) = &target.source {
        text += &format!(
            "  the new content is that of {}\n",
            plain(&source.to_string())
        );
    }
    if !is_on_disk {
        text += &shared_target_note(hosts.instances(&target.host), target);
    }
    for entry in &target.entries {
        text += &format!("  {:<7} {}\n", name(entry.change), plain(&entry.path));
    }
    text + &quoted(target.diff.as_deref().unwrap_or_default())
}

/// Says what a failure would do with the target; empty where the run changes nothing.
fn rollback_text(summary: &Summary, target: &TargetReport) -> String {
    let Some(from) = &target.from else {
        let why = "the served config is not known of every instance, or no copy is kept";
        return format!("; no rollback: {why}");
    };
    if *from == target.to {
        return String::new();
    }
    match summary.after_failure {
        AfterFailure::RollBack => format!("; a failure rolls it back to sha256:{}", short(from)),
        AfterFailure::RollBackFailed => {
            "; a failure rolls back at least the instances that failed".into()
        }
        AfterFailure::Nothing => "; a failure is not rolled back".into(),
    }
}

/// Says what follows where instances of several waves read a target; empty where one wave does.
fn shared_target_note(instances: &[&Instance], target: &TargetReport) -> String {
    let reads = |i: &&&Instance| {
        i.outcome != Outcome::Unchanged && i.wave != 0 && i.targets.contains(&target.path)
    };
    let waves: BTreeSet<usize> = instances.iter().filter(reads).map(|i| i.wave).collect();
    let mut waves = waves.into_iter();
    let Some(first) = waves.next() else {
        return String::new();
    };
    let later: Vec<String> = waves.map(|wave| wave.to_string()).collect();
    if later.is_empty() {
        return String::new();
    }
    let word = if later.len() == 1 { "wave" } else { "waves" };
    if target.kind == TargetKind::Key {
        return format!(
            "  is written in one step for all instances with wave {first}: {word} {} hold back \
             their signals alone, and an instance of these that starts again before starts on the \
             new value\n",
            later.join(", ")
        );
    }
    let why = "an instance of these that starts again before its wave starts on the new config, \
               and must then prove it like any other";
    format!(
        "  is installed with wave {first} and read in {word} {} too: {why}\n",
        later.join(", ")
    )
}

fn wave_text(summary: &Summary, wave: &WaveReport, verbose: bool) -> String {
    let bake = if wave.bake_seconds > 0.0 {
        format!(", then {}s of bake", wave.bake_seconds)
    } else {
        String::new()
    };
    let gates: String = wave
        .gates
        .iter()
        .map(|gate| format!(", then the gate `{}`", plain(&gate.join(" "))))
        .collect();
    let head = format!(
        "wave {}/{}: {}{bake}{gates}\n",
        wave.wave,
        summary.waves.len(),
        instances(wave.instances)
    );
    let members: Vec<&Instance> = summary
        .instances
        .iter()
        .filter(|i| i.wave == wave.wave)
        .collect();
    if verbose || members.len() <= LISTED {
        head + &members.into_iter().map(instance_text).collect::<String>()
    } else {
        head + &grouped(&members)
    }
}

fn skipped_text(hosts: &Hosts<'_>, instance: &Instance) -> String {
    let why = instance.failure.as_ref().map_or("", |f| &f.text);
    let changes = hosts
        .targets(&instance.host)
        .iter()
        .any(|t| instance.targets.contains(&t.path) && t.from.as_ref() != Some(&t.to));
    let more = if changes {
        "; its config changes for the others, so it would start on the new one"
    } else {
        ""
    };
    format!(
        "skipped: {} {}: {}{more}\n",
        plain(&instance.group),
        process(&instance.host, instance.pid),
        plain(why)
    )
}

/// Says what would be done with an instance.
fn next_outcome(instance: &Instance) -> String {
    let failure = instance.failure.as_ref();
    let unresponsive = failure.is_some_and(|f| f.kind == FailureKind::Unresponsive);
    let what = match instance.outcome {
        Outcome::Unchanged => "runs it already, no signal",
        _ if instance.reloads_by == Some(ReloadsBy::Command) && unresponsive => {
            "is unresponsive and would reload by its command"
        }
        _ if instance.reloads_by == Some(ReloadsBy::Command) => "would reload by its command",
        _ if unresponsive => "is unresponsive and would be signalled",
        _ => "would be signalled",
    };
    let validated = if instance.validated {
        "validated"
    } else {
        "not validated"
    };
    format!("{what}, {validated}")
}

fn instance_text(instance: &Instance) -> String {
    let targets: Vec<String> = instance
        .targets
        .iter()
        .map(|t| t.display().to_string())
        .collect();
    let reads = if targets.is_empty() {
        String::new()
    } else {
        format!(" reads {}", targets.join(", "))
    };
    let endpoint = if instance.endpoint.is_empty() {
        String::new()
    } else {
        format!(" {}", instance.endpoint)
    };
    let text = format!(
        "{} {}{endpoint}{reads}: {}",
        instance.group,
        process(&instance.host, instance.pid),
        next_outcome(instance)
    );
    format!("  {}\n", plain(&text))
}

/// Counts the instances of a large wave, and names those that were not validated.
fn grouped(instances: &[&Instance]) -> String {
    let mut groups: BTreeMap<(&str, String), Vec<&Instance>> = BTreeMap::new();
    for instance in instances {
        let key = (instance.group.as_str(), next_outcome(instance));
        groups.entry(key).or_default().push(instance);
    }
    let mut text = String::new();
    for ((group, outcome), members) in groups {
        let unvalidated = members.iter().filter(|i| !i.validated);
        let unvalidated: Vec<(HostName, i32)> =
            unvalidated.map(|i| (i.host.clone(), i.pid)).collect();
        let named = if unvalidated.is_empty() {
            String::new()
        } else {
            format!(": {}", processes(&unvalidated))
        };
        text += &format!("  {}: {} {outcome}{named}\n", plain(group), members.len());
    }
    text
}

#[cfg(test)]
mod tests;
