//! Why one process can or cannot be reloaded, check by check. Touches nothing, signals nobody.

use std::{path::Path, sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    event::{Proof, TargetKind},
    fact::{Assertion, Expectation},
    fleet::{Group, OnBadConfig, Signal, Speaks, Validation},
    host::{
        discover::{self, found::Found, renewal},
        local::survey::{
            check_declared, check_exclusive_address, check_not_stopped, may_signal, take_baseline,
        },
        net::sockets::Listeners,
        probe::limits::ProbeLimits,
        proc::guard::{self, Disposition},
        reload::{opened, prove::strongest_proof, restart_command},
        target::as_started::is_as_it_started,
        validate::{
            current::{CurrentTarget, ValidationCache},
            readable::Readers,
            restart::{self, quoted},
            run::ValidationError,
            verdicts::cannot_judge,
        },
    },
    identity::{Identity, Renewal},
    step::{Content, PlannedInstance, short},
};

/// How long a process that re-executes itself, or has just started, is given to have its handler.
const HANDLER: Duration = Duration::from_secs(1);

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topic {
    /// Which group means it.
    Group,
    /// Leader, worker, or what else among its group's matches.
    Role,
    /// Who says that its program reloads on the signal.
    Reloads,
    /// What becomes of the signal.
    Signal,
    /// Whether this user may send it.
    Permission,
    /// Whether its program stands at its path still.
    Program,
    /// Whether it runs.
    State,
    /// Its mount namespace.
    Mounts,
    /// Its network namespace.
    Network,
    /// Where its config is.
    Config,
    /// Whether that can be replaced.
    Install,
    /// Where it is asked.
    Endpoint,
    /// Whether it answers there.
    Answers,
    /// Whether its validator can be run.
    Validator,
    /// What that says of what is on the disk.
    Disk,
    /// What a config would do that cannot be loaded.
    BadConfig,
    /// How a reload is proven.
    Proof,
    /// The sight that a run has of its opening of the config.
    Opened,
    /// What the signal does not make it read.
    NotRead,
}

impl Topic {
    /// As people read it, in at most 12 letters.
    pub(crate) fn proof_word(self) -> &'static str {
        match self {
            Self::Group => "Group",
            Self::Role => "Role",
            Self::Reloads => "Reloads",
            Self::Signal => "Signal",
            Self::Permission => "Permission",
            Self::Program => "Program",
            Self::State => "State",
            Self::Mounts => "Mounts",
            Self::Network => "Network",
            Self::Config => "Config",
            Self::Install => "Install",
            Self::Endpoint => "Endpoint",
            Self::Answers => "Answers",
            Self::Validator => "Validator",
            Self::Disk => "Disk",
            Self::BadConfig => "Bad config",
            Self::Proof => "Proof",
            Self::Opened => "Opened",
            Self::NotRead => "Not read",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    #[serde(rename = "check")]
    pub(crate) topic: Topic,
    /// Whether it lets a reload through; none where it does not decide, or is not known.
    pub(crate) ok: Option<bool>,
    /// The finding, for people.
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) next: Option<String>,
}

impl Finding {
    pub(crate) fn good(topic: Topic, text: impl Into<String>) -> Self {
        Self {
            topic,
            ok: Some(true),
            text: text.into(),
            next: None,
        }
    }

    /// A finding that does not decide.
    pub(crate) fn note(topic: Topic, text: impl Into<String>) -> Self {
        Self {
            topic,
            ok: None,
            text: text.into(),
            next: None,
        }
    }

    pub(crate) fn bad(topic: Topic, text: impl Into<String>) -> Self {
        Self {
            topic,
            ok: Some(false),
            text: text.into(),
            next: None,
        }
    }

    /// What a guard says: behind the last `;` of its sentence stands what to do about it.
    pub(crate) fn refused(topic: Topic, why: &str) -> Self {
        // A quoted command may have one of its own.
        let outside = |at: usize| why[..at].matches('`').count().is_multiple_of(2);
        match why.rmatch_indices("; ").find(|(at, _)| outside(*at)) {
            Some((at, mark)) => Self::bad(topic, &why[..at]).then(&why[at + mark.len()..]),
            None => Self::bad(topic, why),
        }
    }

    /// The finding of a guard.
    fn of(topic: Topic, said: Result<(), String>, good: impl Into<String>) -> Self {
        said.map_or_else(
            |why| Self::refused(topic, &why),
            |()| Self::good(topic, good),
        )
    }

    /// With what to do about it.
    pub(crate) fn then(self, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }

    /// The same finding where it does not decide.
    fn undecided(self) -> Self {
        Self { ok: None, ..self }
    }
}

/// What one look at the host shares among all processes that are examined.
#[derive(Debug, Default)]
pub(crate) struct Examiner {
    listeners: Listeners,
    lanes: ProbeLimits,
    judged: ValidationCache,
}

impl Examiner {
    /// Asks the kernel who listens where.
    ///
    /// # Errors
    /// A sentence when it does not tell.
    pub(crate) fn new() -> Result<Self, String> {
        let listeners = Listeners::read()
            .map_err(|e| format!("the kernel does not tell who listens where: {e}"))?;
        Ok(Self {
            listeners,
            ..Self::default()
        })
    }

    /// Processes that may share an address with each other: matches of the same groups.
    pub(crate) fn know<'a>(&self, found: impl IntoIterator<Item = &'a Found>) {
        self.lanes
            .add_known(found.into_iter().map(|f| (f.pid, f.started)));
    }

    /// Everything about a process whose group and role are known; without a group, what can be said
    /// of any program.
    pub(crate) async fn examine(&self, found: &Found, group: Option<&Group>) -> Vec<Finding> {
        let pid = found.pid;
        let signal = group.map_or(Signal::Hup, |group| group.signal);
        let mut checks = match group {
            Some(group) => vec![Finding::of(
                Topic::Reloads,
                check_declared(group),
                format!(
                    "{} says that it reloads on {}",
                    declared_by(group),
                    signal.name()
                ),
            )],
            None => vec![Finding::note(
                Topic::Reloads,
                format!("nobody says what it does on {}", signal.name()),
            )],
        };
        checks.push(on_signal(pid, signal, group).await);
        let whose = format!("run hello as uid {} or as root", found.uid);
        let permission = Finding::of(
            Topic::Permission,
            may_signal(pid),
            format!("may be signalled by uid {}", nix::unistd::geteuid()),
        );
        checks.push(if permission.ok == Some(false) {
            permission.then(whose)
        } else {
            permission
        });
        checks.push(Finding::of(Topic::State, check_not_stopped(pid), "runs"));
        checks.push(match guard::shares(pid, "mnt") {
            Some(true) => Finding::good(Topic::Mounts, "sees the mounts of this host"),
            Some(false) => Finding::note(
                Topic::Mounts,
                "has a mount namespace of its own: what it \
                sees at the path of its config is compared",
            ),
            None => Finding::note(
                Topic::Mounts,
                "its mount namespace cannot be seen by this user",
            ),
        });
        let Some(group) = group else {
            checks.push(network(pid, false));
            return checks;
        };
        if found.exe.as_os_str().is_empty() {
            checks.push(Finding::note(
                Topic::Config,
                "cannot be looked at by this user, nor can anything else of it",
            ));
            return checks;
        }
        checks.extend(program(found, group));
        let kernel = group.confirm.iter().any(|fact| fact.source.is_kernel());
        checks.push(network(pid, group.needs_endpoint() || kernel));
        self.reading(found, group, &mut checks).await;
        checks
    }

    /// What it reads, how that is judged, and how a reload of it is proven.
    async fn reading(&self, found: &Found, group: &Group, checks: &mut Vec<Finding>) {
        let live = CurrentTarget::of(found, group).await;
        checks.push(config(&live, &found.identity(group)));
        checks.push(match &live {
            Ok(live) => install(live, found.pid),
            Err(_) => Finding::note(Topic::Install, "not looked at"),
        });
        let mut instance = found.instance(&group.name);
        let said = found.endpoint.clone().map_or_else(
            || self.listeners.endpoint(found.pid, &found.args, group),
            Ok,
        );
        checks.push(match &said {
            Ok(endpoint) => Finding::of(
                Topic::Endpoint,
                check_exclusive_address(found, endpoint, &self.listeners, &self.lanes),
                endpoint.clone(),
            ),
            Err(why) if group.needs_endpoint() => Finding::refused(Topic::Endpoint, why),
            Err(why) => Finding::note(
                Topic::Endpoint,
                format!(
                    "{}, and nobody asks it there",
                    why.rsplit_once("; ").map_or(why.as_str(), |(why, _)| why)
                ),
            ),
        });
        instance.endpoint = said.clone().unwrap_or_default();
        instance.targets = live.iter().flatten().map(|l| l.path.clone()).collect();
        let mut member =
            PlannedInstance::new(instance, Arc::new(group.clone()), found.args.clone());
        member.identity = found.identity(group);
        member.cwd = std::fs::read_link(format!("/proc/{}/cwd", found.pid)).unwrap_or_default();
        checks.push(self.answers(&mut member, said.is_ok()).await);
        match &live {
            Ok(live) => self.validator(&member, live, checks).await,
            Err(_) => {
                checks.extend([Topic::Validator, Topic::Disk].map(|topic| {
                    Finding::note(topic, "not looked at, since its config is not known")
                }))
            }
        }
        checks.push(on_bad_config(&member));
        checks.push(proof(
            &member,
            live.iter()
                .flatten()
                .next()
                .and_then(|l| l.disk.as_ref().ok()),
        ));
        checks.extend(
            live.as_deref()
                .ok()
                .and_then(|live| is_watched(&member, live)),
        );
        checks.push(not_read(found, &member, live.as_deref().unwrap_or_default()).await);
    }

    async fn answers(&self, member: &mut PlannedInstance, has_endpoint: bool) -> Finding {
        let group = member.group.clone();
        if group.needs_endpoint() && !has_endpoint {
            return Finding::note(Topic::Answers, "not asked, since its endpoint is not known");
        }
        let mut sources: Vec<String> = group
            .confirm
            .iter()
            .chain(&group.reject)
            .map(|fact| fact.source.describe(&member.instance.endpoint))
            .collect();
        sources.dedup();
        if sources.is_empty() && group.speaks == Speaks::None {
            return Finding::note(
                Topic::Answers,
                "is not asked: its group says that nothing can be seen",
            );
        }
        let said = take_baseline(member, &self.listeners, &self.lanes)
            .await
            .map_err(|silence| silence.message);
        let good = match &member.instance.after {
            Some(sha256) => format!("tells that it runs sha256:{}", short(sha256)),
            None => format!("all facts can be read: {}", sources.join(", ")),
        };
        Finding::of(Topic::Answers, said, good)
    }

    /// Whether its validator can be run, on a new config as well, and what it says of the one on
    /// the disk.
    async fn validator(
        &self,
        member: &PlannedInstance,
        live: &[CurrentTarget],
        checks: &mut Vec<Finding>,
    ) {
        let group = &member.group;
        let must = group.on_bad_config == OnBadConfig::Dies;
        let decides = |check: Finding| if must { check } else { check.undecided() };
        if group.validate.is_empty() {
            let name = &group.name;
            let ends = if must {
                ", and a bad config ends the process"
            } else {
                ""
            };
            checks.push(match group.validation {
                Validation::Waived => {
                    let why = format!("group `{name}` says that the program has none");
                    Finding::note(Topic::Validator, why)
                }
                Validation::Wanted => {
                    let why = format!("group `{name}` has no validator{ends}");
                    decides(Finding::bad(Topic::Validator, why).then("say `validate = [argv]`"))
                }
            });
            checks.push(Finding::note(
                Topic::Disk,
                "nobody knows whether it is valid",
            ));
            return;
        }
        let (said, by) = self.judged.of(member, live).await;
        let place = if matches!(said, Err(ValidationError::NotRun(_))) {
            Ok(())
        } else {
            self.judged.place(member, live).await
        };
        checks.push(match (&said, &place) {
            (Err(ValidationError::NotRun(why)), _) | (_, Err(why)) => decides(
                Finding::bad(Topic::Validator, why.clone()).then(match must {
                    true => {
                        "without it nobody is signalled: mend it, or say another with `validate`"
                    }
                    false => {
                        "without it a config goes unvalidated: mend it, or say another with \
                          `validate`"
                    }
                }),
            ),
            (_, Ok(())) => Finding::good(Topic::Validator, by),
        });
        let paths = live
            .iter()
            .map(|l| format!("`{}`", l.path.display()))
            .collect::<Vec<_>>()
            .join(", ");
        checks.push(match said {
            Ok(said) if !said.is_empty() => {
                let text = if live.iter().any(|l| l.secret) {
                    "which are not shown: it is a secret".into()
                } else {
                    said.text()
                };
                Finding::note(
                    Topic::Disk,
                    format!(
                        "{paths} is valid as it stands, and its validator names errors: {text}"
                    ),
                )
            }
            Ok(_) => Finding::good(Topic::Disk, format!("{paths} is valid as it stands")),
            Err(ValidationError::Refused(why))
                if !live.is_empty() && live.iter().all(|l| is_as_it_started(member, &l.path)) =>
            {
                decides(
                    Finding::bad(Topic::Disk, cannot_judge(&why))
                        .then("say another validator with `validate`"),
                )
            }
            Err(ValidationError::Refused(why)) => {
                Finding::bad(Topic::Disk, format!("{paths}: {why}"))
                    .then("mend it: neither a reload nor a restart takes it")
            }
            Err(ValidationError::NotRun(_)) => {
                Finding::note(Topic::Disk, "nobody knows whether it is valid")
            }
        });
    }
}

fn declared_by(group: &Group) -> String {
    group.kind.as_ref().map_or_else(
        || format!("group `{}`", group.name),
        |kind| format!("kind `{kind}`"),
    )
}

/// What becomes of the signal. Without a word of somebody who knows the program, a handler proves
/// nothing.
async fn on_signal(pid: i32, signal: Signal, group: Option<&Group>) -> Finding {
    let name = signal.name();
    if let Some(group) = group
        && let Err(why) =
            guard::wait_for_handler(pid, group, guard::handler_grace_period(pid, HANDLER)).await
    {
        let check = Finding::bad(Topic::Signal, why);
        return match guard::disposition(pid, signal) {
            Ok(Disposition::Ignored) => check.then(format!(
                "start it without nohup, and by nobody \
                who ignores {name}"
            )),
            Ok(Disposition::Default) => check.then(
                "if a thread of it waits in sigwait, say \
                `reloads = \"unchecked\"`; else it can only be restarted",
            ),
            _ => check,
        };
    }
    let vouched = group.is_some_and(|group| check_declared(group).is_ok());
    let proves = "which proves nothing while nobody says that it reloads: the runtimes of Go and \
                  Java catch it in every program, and die of it all the same";
    match guard::disposition(pid, signal) {
        Err(why) => Finding::bad(Topic::Signal, why),
        Ok(Disposition::Caught) if vouched => {
            Finding::good(Topic::Signal, format!("has a handler for {name}"))
        }
        Ok(Disposition::Awaited) if vouched => {
            Finding::good(Topic::Signal, format!("waits for {name} in a signalfd"))
        }
        Ok(Disposition::InSigwait) if vouched => {
            Finding::good(Topic::Signal, format!("waits for {name} in sigwait"))
        }
        Ok(Disposition::Blocked) if vouched => Finding::note(
            Topic::Signal,
            format!(
                "has a handler for {name}, and blocks it at the moment: the signal is pending \
                 until it does not"
            ),
        ),
        Ok(Disposition::Caught | Disposition::Awaited | Disposition::InSigwait) => {
            Finding::note(Topic::Signal, format!("has a handler for {name}, {proves}"))
        }
        // Only where somebody says that it need not show.
        Ok(Disposition::Default) if vouched => Finding::note(
            Topic::Signal,
            format!("shows no handler for {name}, and its group says that it waits in sigwait"),
        ),
        Ok(Disposition::Default) => Finding::bad(
            Topic::Signal,
            format!("has no handler for {name} and would die of it"),
        ),
        Ok(Disposition::Blocked) => {
            Finding::bad(Topic::Signal, format!("blocks {name} in every thread"))
        }
        Ok(Disposition::Ignored) => Finding::bad(Topic::Signal, format!("ignores {name}")),
    }
}

/// What became of its program since it started; none where that stands at its path.
fn program(found: &Found, group: &Group) -> Option<Finding> {
    let renewal = found.identity(group).renewal;
    if let Some(why) = renewal::refuses(&renewal, group) {
        return Some(Finding::refused(Topic::Program, &why));
    }
    let (exe, signal) = (renewal::unmarked(&found.exe), group.signal.name());
    match renewal {
        Renewal::Another(path, _) => {
            let text = format!(
                "executes `{}` again on {signal}, another program than it runs: that one judges \
                 its config",
                path.display()
            );
            Some(Finding::note(Topic::Program, text))
        }
        Renewal::None if exe != found.exe => {
            let text = format!(
                "`{}` was replaced or removed since it started: it goes on with the old program, \
                 which judges its config",
                exe.display()
            );
            Some(Finding::note(Topic::Program, text).then("restart it to run another"))
        }
        _ => None,
    }
}

fn network(pid: i32, needed: bool) -> Finding {
    match guard::shares(pid, "net") {
        Some(true) => Finding::good(Topic::Network, "is in the network of this host"),
        None => Finding::note(
            Topic::Network,
            "its network namespace cannot be seen by this user",
        ),
        Some(false) => {
            let check = Finding::bad(
                Topic::Network,
                "is in another network namespace, where this host cannot ask it",
            );
            let check = check.then(format!(
                "run hello in there: `nsenter --target {pid} --net hello ..`"
            ));
            if needed { check } else { check.undecided() }
        }
    }
}

fn config(live: &Result<Vec<CurrentTarget>, String>, of: &Identity) -> Finding {
    let live = match live {
        Ok(live) => live,
        Err(why) => return Finding::refused(Topic::Config, why),
    };
    if live.is_empty() {
        return Finding::note(
            Topic::Config,
            "its group has no config: it is only signalled and confirmed",
        );
    }
    let mut all = Vec::new();
    for one in live {
        let path = one.path.display();
        match &one.disk {
            Ok(blob) => {
                let form = if blob.kind() == TargetKind::Directory {
                    "directory"
                } else {
                    "file"
                };
                all.push(format!(
                    "`{path}` ({form}, sha256:{}{})",
                    short(&blob.sha256),
                    if one.secret { ", a secret" } else { "" }
                ));
            }
            Err(why) => return Finding::bad(Topic::Config, why.clone()),
        }
    }
    if let Some(why) = live
        .iter()
        .find_map(|one| Readers::default().refuse(of, &one.path, &one.path))
    {
        return Finding::refused(Topic::Config, &why.to_string());
    }
    Finding::good(Topic::Config, format!("reads {}", all.join(", ")))
}

fn install(live: &[CurrentTarget], pid: i32) -> Finding {
    if live.is_empty() {
        return Finding::note(Topic::Install, "nothing is replaced");
    }
    if let Some(why) = live.iter().find_map(|one| one.replace_blocker(pid)) {
        return Finding::refused(Topic::Install, &why);
    }
    match live.iter().find_map(CurrentTarget::lock_owner) {
        Some(busy) => {
            Finding::note(Topic::Install, busy).then("wait for it, or say --lock-timeout 60s")
        }
        None => Finding::good(Topic::Install, "can be replaced in one step"),
    }
}

fn on_bad_config(member: &PlannedInstance) -> Finding {
    let group = &member.group;
    match (group.on_bad_config, group.revive.is_empty()) {
        (OnBadConfig::Keeps, _) => Finding::good(
            Topic::BadConfig,
            match group.kind {
                Some(_) => {
                    "its kind says that it keeps its old config when it cannot load the new one"
                }
                None => {
                    "is taken to keep its old config when it cannot load the new one; if it ends: \
                     `on_bad_config = \"dies\"`"
                }
            },
        ),
        (OnBadConfig::Dies, false) => Finding::good(
            Topic::BadConfig,
            format!(
                "ends, and is started again on the old config by `{}`",
                group.revive.join(" ")
            ),
        ),
        (OnBadConfig::Dies, true) => {
            let check = Finding::note(
                Topic::BadConfig,
                "ends when it cannot load the new config, and somebody must start it again",
            );
            let by_hand = restart_command::command(member).map_or(String::new(), |line| {
                format!("; by hand it would be: {line}")
            });
            check.then(format!(
                "say how in its group with `revive = [argv]`{by_hand}"
            ))
        }
    }
}

/// The strongest thing that its facts would prove of a config such as the one on the disk.
fn proof(member: &PlannedInstance, disk: Option<&Content>) -> Finding {
    let group = &member.group;
    if group.speaks == Speaks::Hello && !group.config.is_empty() {
        return Finding::good(
            Topic::Proof,
            format!(
                "{}: it tells the digest of the very bytes",
                word(Proof::Exact)
            ),
        );
    }
    let filled: Result<Vec<Assertion>, String> = group
        .confirm
        .iter()
        .map(|fact| fact.resolved(disk.and_then(Content::file)))
        .collect();
    let filled = match filled {
        Ok(filled) => filled,
        Err(why) => return Finding::note(Topic::Proof, why),
    };
    // Another config changes what is taken from it.
    let differs = |at: usize| {
        group.confirm.get(at).map(|fact| &fact.expectation)
            != filled.get(at).map(|fact| &fact.expectation)
    };
    let reads = |at: usize| member.baseline.get(at).and_then(Option::as_ref);
    let unheld = |at: usize| match &filled[at].expectation {
        Expectation::Equals(text) => reads(at).is_some_and(|now| now != text),
        _ => false,
    };
    let (endpoint, mut unheld) = (
        &member.instance.endpoint,
        (0..filled.len()).filter(|at| unheld(*at)),
    );
    if let Some(at) = unheld.clone().find(|at| differs(*at)) {
        let text = format!(
            "{} does not read what the config on the disk says that it should",
            filled[at].source.describe(endpoint)
        );
        return Finding::bad(Topic::Proof, text)
            .then("correct the assertion, or bring it to what is on the disk first");
    }
    let fails = unheld.next().map_or(String::new(), |at| {
        format!(
            " (at the moment {} reads otherwise)",
            filled[at].source.describe(endpoint)
        )
    });
    let proof = strongest_proof(&filled, &member.baseline, differs, true, |_| true);
    let what = match proof {
        Proof::Exact => "it tells the digest of the very bytes",
        Proof::Content => "it answers what the new config makes it answer",
        Proof::Reloaded => "it tells that it loaded a config after the signal",
        Proof::Workers => "its workers, or its listening socket, are new",
        Proof::None if filled.is_empty() => {
            "its group says that nothing can be seen, so that it ends as unconfirmed"
        }
        Proof::None => "all that its facts say is so already",
    };
    let text = format!("{}: {what}{fails}", word(proof));
    if proof == Proof::None {
        Finding::note(Topic::Proof, text).then("say what can be seen with [[group.confirm]]")
    } else {
        Finding::good(Topic::Proof, text)
    }
}

/// Whether a run of this user sees that it opens its config after the signal; none of one that
/// tells what it has read.
fn is_watched(member: &PlannedInstance, live: &[CurrentTarget]) -> Option<Finding> {
    if member.group.speaks == Speaks::Hello || live.is_empty() {
        return None;
    }
    let default = live.iter().find(|one| one.assumed).map(|one| {
        format!(
            "`{}` is only its default, or begins where it stands",
            one.path.display()
        )
    });
    Some(match (opened::may_watch(), default) {
        (true, None) => Finding::good(
            Topic::Opened,
            "a run sees whether it opens its config after the signal",
        ),
        (true, Some(default)) => Finding::good(
            Topic::Opened,
            format!("{default}: it is unproven unless a run sees it open that after the signal"),
        ),
        (false, None) => Finding::note(
            Topic::Opened,
            "only root sees whether it opens its config after the signal",
        ),
        (false, Some(default)) => {
            let check = Finding::note(
                Topic::Opened,
                format!("{default}, and only root sees whether it opens that after the signal"),
            );
            check.then(format!(
                "say `config` in group `{}`, if that is the file which it reads",
                member.group.name
            ))
        }
    })
}

/// As JSON names it.
fn word(proof: Proof) -> String {
    serde_json::to_value(proof)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What the signal does not make it read.
async fn not_read(found: &Found, member: &PlannedInstance, live: &[CurrentTarget]) -> Finding {
    let group = &member.group;
    let (fixed, signal) = (discover::fixed_of(found, group), group.signal.name());
    let within = |path: &Path| fixed.iter().any(|f| f.starts_with(path));
    if let Some(one) = live.iter().find(|one| within(&one.path)) {
        let text = format!(
            "does not read `{}` on {signal}, only at its start",
            one.path.display()
        );
        return Finding::bad(Topic::NotRead, text).then("restart it after a change of that");
    }
    match (fixed.as_slice(), group.restart_keys.is_empty()) {
        ([], true) if group.speaks == Speaks::Hello => Finding::good(
            Topic::NotRead,
            "a changed `listen` needs a restart, or is overridden by `--listen`, and is told \
             beforehand",
        ),
        ([], true) => Finding::good(
            Topic::NotRead,
            format!("nothing is known that it would not read on {signal}"),
        ),
        ([], false) => match restart::pending(member).await {
            Ok(keys) if keys.is_empty() => Finding::good(
                Topic::NotRead,
                "some keys need a restart, and are named beforehand",
            ),
            Ok(keys) => Finding::note(
                Topic::NotRead,
                format!("a restart is needed for {} on its disk", quoted(&keys)),
            )
            .then("restart it"),
            Err(why) => Finding::note(
                Topic::NotRead,
                format!("some keys need a restart, and which wait for one is not told: {why}"),
            ),
        },
        (fixed, _) => {
            let fixed: Vec<String> = fixed.iter().map(|f| format!("`{}`", f.display())).collect();
            Finding::note(
                Topic::NotRead,
                format!(
                    "does not read {} on {signal}, only at its start",
                    fixed.join(", ")
                ),
            )
        }
    }
}
