//! Finds out, check by check, why one process can or cannot be reloaded. Changes nothing, and
//! signals no process.

use std::{io, sync::Arc};

use crate::{
    assertion::Source,
    fleet::{Group, Signal, Speaks, Trigger},
    host::{
        discover::{Scan, found::Found},
        local::{
            baseline::take_baseline,
            draft::{self, Draft, NoDraft},
            guards::check_exclusive_address,
            sources::Sources,
        },
        net::sockets::{EndpointError, Listeners},
        probe::{limits::ProbeLimits, log},
        validate::current::{CurrentTarget, ValidationCache},
    },
    refusal::Refusal,
    step::{PlannedInstance, short},
};

mod config;
mod finding;
mod process;
mod proof;
mod validator;

pub(crate) use self::finding::{Finding, Topic};

/// The view of this host that the checks of all processes share.
#[derive(Debug, Default)]
pub(crate) struct Examiner {
    listeners: Listeners,
    limits: ProbeLimits,
    validations: ValidationCache,
    sources: Sources,
}

impl Examiner {
    /// Reads all listening sockets from the kernel.
    ///
    /// # Errors
    /// Fails if the kernel does not list them.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            listeners: Listeners::read()?,
            ..Self::default()
        })
    }

    /// Reads the keys of stores that the groups take their new config from.
    pub(crate) async fn read_sources(&mut self, groups: impl Iterator<Item = &Group>) {
        self.sources = Sources::read(groups).await;
    }

    /// Adds processes that may share an address with each other: matches of the same groups.
    pub(crate) fn know<'a>(&self, found: impl IntoIterator<Item = &'a Found>) {
        self.limits
            .add_known(found.into_iter().map(|f| (f.pid, f.started)));
    }

    /// Checks a process whose group and role are known. Without a group, only the checks that hold
    /// for any program are made.
    pub(crate) async fn examine(&self, found: &Found, group: Option<&Group>) -> Vec<Finding> {
        let pid = found.pid;
        let trigger = group.map_or(Trigger::Signal(Signal::Hup), Group::trigger);
        // Where nothing reloads it, no other check matters.
        if group.is_some_and(|group| group.never_reloads().is_some()) {
            return vec![process::declared(Signal::Hup, group)];
        }
        let mut findings = Vec::new();
        if let Trigger::Signal(signal) = trigger {
            findings.push(process::declared(signal, group));
            findings.push(process::signal(pid, signal, group).await);
            findings.push(process::permission(found));
        }
        findings.extend([process::state(pid), process::mounts(pid)]);
        let Some(group) = group else {
            findings.push(process::network(pid, false));
            return findings;
        };
        if found.exe.as_os_str().is_empty() {
            findings.push(Finding::note(
                Topic::Config,
                "cannot be read by this user, nor can anything else of this process",
            ));
            return findings;
        }
        findings.extend(process::program(found, group));
        let reads_kernel = group
            .confirm
            .iter()
            .any(|assertion| matches!(assertion.source, Source::Workers | Source::Listener));
        findings.push(process::network(
            pid,
            group.needs_endpoint() || reads_kernel,
        ));
        findings.extend(self.examine_config(found, group).await);
        findings
    }

    /// Writes the group of a process that no group and no kind matches. `taken` are the names of
    /// other groups.
    ///
    /// # Errors
    /// Fails if no group can match the process, or if another process takes the signal for it.
    pub(crate) async fn draft(
        &self,
        found: &Found,
        scan: &Scan,
        taken: &[&str],
    ) -> Result<Draft, Refusal<NoDraft>> {
        draft::draft(found, scan, &self.listeners, taken).await
    }

    /// Checks the config of a process, its validation, and the proof of a reload.
    async fn examine_config(&self, found: &Found, group: &Group) -> Vec<Finding> {
        let current = CurrentTarget::of(found, group).await;
        let mut findings = vec![
            config::config(&current, &found.identity(group)),
            match &current {
                Ok(targets) => config::install(targets, found.pid),
                Err(_) => Finding::note(Topic::Install, "not checked"),
            },
        ];
        findings.extend(config::source(self.sources.key_of(group)));
        let endpoint = found.endpoint.clone().map_or_else(
            || self.listeners.endpoint(found.pid, &found.args, group),
            Ok,
        );
        findings.push(self.endpoint(found, group, &endpoint));
        let targets = current.as_deref().unwrap_or_default();
        let mut instance = found.instance(group);
        instance.targets = targets.iter().map(|target| target.path.clone()).collect();
        let has_endpoint = endpoint.is_ok();
        instance.endpoint = endpoint.unwrap_or_default();
        let mut planned =
            PlannedInstance::new(instance, Arc::new(group.clone()), found.args.clone());
        planned.identity = found.identity(group);
        planned.cwd = std::fs::read_link(format!("/proc/{}/cwd", found.pid)).unwrap_or_default();
        planned.variables = found.named_variables(group);
        findings.extend(process::command(&planned));
        findings.push(self.answers(&mut planned, has_endpoint).await);
        findings.extend(
            if current.is_ok() && targets.iter().all(CurrentTarget::has_file) {
                validator::validator(&self.validations, &planned, targets).await
            } else {
                [Topic::Validator, Topic::Disk]
                    .map(|topic| Finding::note(topic, "not checked, since its config is not known"))
            },
        );
        findings.push(config::bad_config(&planned));
        let first = targets.first().and_then(|target| target.disk.as_ref().ok());
        findings.push(proof::proof(&planned, first));
        findings.extend(config::opened(&planned, targets));
        findings.push(config::not_read(found, &planned, targets).await);
        findings
    }

    /// Checks that the endpoint is known, and that no process outside the fleet listens there.
    fn endpoint(
        &self,
        found: &Found,
        group: &Group,
        endpoint: &Result<String, Refusal<EndpointError>>,
    ) -> Finding {
        match endpoint {
            Ok(endpoint) => Finding::of(
                Topic::Endpoint,
                check_exclusive_address(found, endpoint, &self.listeners, &self.limits),
                endpoint.clone(),
            ),
            Err(why) if group.needs_endpoint() => Finding::refused(Topic::Endpoint, why),
            Err(Refusal { why, .. }) => {
                Finding::note(Topic::Endpoint, format!("{why}, and no probe needs one"))
            }
        }
    }

    /// Checks that every source of the assertions can be read.
    async fn answers(&self, planned: &mut PlannedInstance, has_endpoint: bool) -> Finding {
        let group = planned.group.clone();
        if group.needs_endpoint() && !has_endpoint {
            return Finding::note(
                Topic::Answers,
                "not probed, since its endpoint is not known",
            );
        }
        let mut sources: Vec<String> = group
            .confirm
            .iter()
            .chain(&group.reject)
            .map(|assertion| log::describe(planned, &assertion.source))
            .collect();
        sources.dedup();
        if sources.is_empty() && group.speaks == Speaks::None {
            return Finding::note(Topic::Answers, "is not probed: its group has no assertion");
        }
        let result = take_baseline(planned, &self.listeners, &self.limits)
            .await
            .map_err(|error| error.refusal);
        if let Some(why) = self.limits.logs.ambiguity(planned) {
            return Finding::bad(Topic::Answers, why);
        }
        let good = match &planned.instance.after {
            Some(sha256) => format!("reports that it runs sha256:{}", short(sha256)),
            None => format!("every assertion can be read: {}", sources.join(", ")),
        };
        Finding::of(Topic::Answers, result, good)
    }
}
