//! Processes as sentences name them.

use std::{borrow::Borrow, collections::HashMap};

use super::Instance;
use crate::{inventory::HostName, names};

/// Returns a process as sentences name it: "pid 811", or "edge-081 pid 811" on another host.
#[must_use]
pub(crate) fn process(host: &HostName, pid: i32) -> String {
    if host.is_local() {
        format!("pid {pid}")
    } else {
        format!("{host} pid {pid}")
    }
}

/// Lists processes: "pid 811, 812", or "edge-081 pid 811, edge-090 pid 812" over other hosts.
#[must_use]
pub(crate) fn processes(all: &[(HostName, i32)]) -> String {
    if all.iter().all(|(host, _)| host.is_local()) {
        let pids: Vec<i32> = all.iter().map(|(_, pid)| *pid).collect();
        return format!("pid {}", names::pids(&pids));
    }
    let names = all.iter().map(|(host, pid)| process(host, *pid));
    names::list(names, ", ", names::MOST)
}

/// Returns true if an instance is on another host than this machine. Reports name hosts then.
#[must_use]
pub(crate) fn has_hosts<I: Borrow<Instance>>(instances: &[I]) -> bool {
    let is_elsewhere = |instance: &I| !instance.borrow().host.is_local();
    instances.iter().any(is_elsewhere)
}

/// Lists instances by pid, each with the text of its failure. Over hosts, instances that share a
/// text are listed together behind it.
#[must_use]
pub(crate) fn failures(instances: &[Instance]) -> String {
    let why = |instance: &Instance| {
        let failure = instance.failure.as_ref();
        failure.map_or(String::new(), |failure| failure.text.clone())
    };
    if !has_hosts(instances) {
        let texts = instances
            .iter()
            .map(|i| format!("pid {} {}", i.pid, why(i)));
        return names::list(texts, "; ", names::MOST);
    }
    let mut reasons: Vec<(String, Vec<(HostName, i32)>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for instance in instances {
        let place = *places.entry(why(instance)).or_insert_with_key(|why| {
            reasons.push((why.clone(), Vec::new()));
            reasons.len() - 1
        });
        let id = (instance.host.clone(), instance.pid);
        reasons[place].1.push(id);
    }
    let texts = reasons
        .into_iter()
        .map(|(why, all)| format!("{why}: {}", processes(&all)));
    names::list(texts, "; ", names::MOST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::event::{Failure, Outcome};

    fn failed(host: &str, pid: i32, why: &str) -> Instance {
        let failure = Failure {
            kind: Outcome::TimedOut.into(),
            text: why.into(),
        };
        Instance {
            host: HostName::new(host).unwrap(),
            failure: Some(failure),
            ..Instance::new("web", pid, 1)
        }
    }

    #[test]
    fn failures_of_this_machine_are_listed_by_pid() {
        let all = [failed("local", 1, "is stopped"), failed("local", 2, "died")];
        assert_eq!(failures(&all), "pid 1 is stopped; pid 2 died");
    }

    #[test]
    fn failures_over_hosts_are_grouped_by_reason() {
        let all = [
            failed("edge-081", 811, "workers not replaced after 10s"),
            failed("edge-002", 7, "died"),
            failed("edge-090", 7730, "workers not replaced after 10s"),
        ];
        assert_eq!(
            failures(&all),
            "workers not replaced after 10s: edge-081 pid 811, edge-090 pid 7730; died: edge-002 \
             pid 7"
        );
    }

    #[test]
    fn a_reason_of_400_hosts_names_ten() {
        let all: Vec<Instance> = (1..=400)
            .map(|n| failed(&format!("edge-{n:03}"), n, "died"))
            .collect();
        let text = failures(&all);
        assert!(text.starts_with("died: edge-001 pid 1, edge-002 pid 2, "));
        assert!(text.ends_with(", edge-010 pid 10 and 390 more"), "{text}");
    }
}
