//! A run in GitHub Actions: annotations of the job, and its step summary.

use std::fmt::Write as _;

use super::{
    Summary, hosts,
    text::{end_text, name},
};
use crate::{
    event::{Instance, Outcome, TargetReport, has_hosts, process},
    inventory::HostName,
    names, screen,
    step::short,
};

/// The head of the column with the hosts, and the rule below it.
const HOST: (&str, &str) = ("| host ", "|---");
const NO_HOST: (&str, &str) = ("", "");

/// Returns the workflow commands for the verdict and for the first instances that failed. GitHub
/// shows at most ten annotations of a level for each step.
pub(super) fn annotations(summary: &Summary) -> Vec<String> {
    let command = summary.command;
    let title = format!("{command}: {}", name(summary.verdict));
    if summary.exit == 0 {
        return vec![annotation("notice", &title, &end_text(summary))];
    }
    let mut text = summary.reason.clone();
    for next in &summary.next {
        let _ = write!(text, "\n{next}");
    }
    let failed = summary
        .instances
        .iter()
        .filter_map(|instance| Some((instance, instance.failure.as_ref()?)))
        .map(|(instance, failure)| {
            let title = format!(
                "{} {}: {}",
                instance.group,
                process(&instance.host, instance.pid),
                name(instance.outcome)
            );
            annotation("error", &title, &failure.text)
        });
    std::iter::once(annotation("error", &title, &text))
        .chain(failed)
        .take(names::MOST)
        .collect()
}

fn annotation(level: &str, title: &str, text: &str) -> String {
    let data = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let title = data(title).replace(':', "%3A").replace(',', "%2C");
    format!("::{level} title={title}::{}", data(text))
}

/// Returns the summary of the run in Markdown.
pub(super) fn step_summary(summary: &Summary) -> String {
    let mut reason = summary.reason.lines();
    let mut text = format!(
        "## {}: {} (exit {})\n\n{}\n",
        plain(summary.command),
        name(summary.verdict),
        summary.exit,
        plain(reason.next().unwrap_or_default())
    );
    code(&mut text, reason);
    hosts(&mut text, summary);
    targets(&mut text, &summary.targets);
    instances(&mut text, &summary.instances);
    if !summary.next.is_empty() {
        text.push_str("\nNext:\n");
    }
    code(&mut text, summary.next.iter().map(String::as_str));
    text
}

/// Appends the number of hosts in each state, and those with a fault.
fn hosts(text: &mut String, summary: &Summary) {
    let (Some(counts), Some(others)) = (&summary.host_counts, &summary.hosts) else {
        return;
    };
    let lines = hosts::lines(counts, others);
    text.push('\n');
    for (word, line) in lines.iter().take(names::MOST) {
        let _ = writeln!(text, "- {word} {}", plain(line));
    }
    let more = lines.len().saturating_sub(names::MOST);
    if more > 0 {
        let _ = writeln!(text, "- {more} more.");
    }
}

/// Appends the table of the targets, with their hosts where any is not this machine.
fn targets(text: &mut String, all: &[TargetReport]) {
    if all.is_empty() {
        return;
    }
    let over_hosts = all.iter().any(|target| !target.host.is_local());
    let (head, rule) = if over_hosts { HOST } else { NO_HOST };
    let _ = writeln!(
        text,
        "\n{head}| target | before | candidate | on disk |\n{rule}|---|---|---|---|"
    );
    let digest = |digest: Option<&String>| digest.map_or("-", |digest| short(digest)).to_owned();
    for target in all.iter().take(names::MOST) {
        text.push_str(&host_cell(over_hosts, &target.host));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            plain(&target.path.display().to_string()),
            digest(target.from.as_ref()),
            digest(Some(&target.to)),
            digest(target.disk.as_ref())
        );
    }
    let more = all.len().saturating_sub(names::MOST);
    if over_hosts && more > 0 {
        let _ = writeln!(text, "\n{more} more.");
    }
}

/// Returns the first cell of a row over hosts.
fn host_cell(over_hosts: bool, host: &HostName) -> String {
    if over_hosts {
        format!("| {} ", plain(host.as_str()))
    } else {
        String::new()
    }
}

/// Appends lines as they are.
fn code<'a>(text: &mut String, lines: impl Iterator<Item = &'a str>) {
    for (number, line) in lines.enumerate() {
        let before = if number == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{before}    {}", screen::line(line));
    }
}

/// Appends the table of the instances that did not end well, and counts the others.
fn instances(text: &mut String, all: &[Instance]) {
    let is_well =
        |instance: &&Instance| matches!(instance.outcome, Outcome::Confirmed | Outcome::Unchanged);
    let well = all.iter().filter(is_well).count();
    if well > 0 {
        let _ = writeln!(
            text,
            "\n{} on the config.",
            screen::counted(well, "instance")
        );
    }
    let others: Vec<&Instance> = all.iter().filter(|instance| !is_well(instance)).collect();
    if others.is_empty() {
        return;
    }
    let over_hosts = has_hosts(all);
    let (head, rule) = if over_hosts { HOST } else { NO_HOST };
    let _ = writeln!(
        text,
        "\n{head}| group | pid | endpoint | outcome | why |\n{rule}|---|---|---|---|---|"
    );
    for instance in others.iter().take(names::MOST) {
        text.push_str(&host_cell(over_hosts, &instance.host));
        let why = instance
            .failure
            .as_ref()
            .map_or("", |failure| &failure.text);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            plain(&instance.group),
            instance.pid,
            plain(&instance.endpoint),
            name(instance.outcome),
            plain(why)
        );
    }
    let more = others.len().saturating_sub(names::MOST);
    if more > 0 {
        let _ = writeln!(text, "\n{more} more.");
    }
}

/// Returns `text` on one line, without a meaning in Markdown or HTML.
fn plain(text: &str) -> String {
    screen::line(text)
        .chars()
        .map(|c| match c {
            '&' | '<' | '>' | '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '#' | '~' | '@' | '!' => {
                format!("&#{};", u32::from(c))
            }
            c => c.to_string(),
        })
        .collect()
}
