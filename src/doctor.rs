//! `hello doctor`: why a process, or every match of the fleet, can or cannot be reloaded. Reads
//! only.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    event::Verdict,
    fleet::{Fleet, Group, KINDS},
    host::{
        discover::{
            self, Membership, Scan,
            found::{Finds, Found},
        },
        local::examine::{Examiner, Finding, Topic},
    },
    report::{Output, refused},
    screen,
};

/// So many reasons of one process are repeated in its last line.
const REPEATED: usize = 3;

/// The next step for a program that no group knows.
const NEW_GROUP: &str =
    "if it reloads on a signal, write a group for it that says so, and how a reload is seen";

/// Checked options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The process; without one, every match of the fleet.
    pub pid: Option<i32>,
    /// The fleet, read and selected; without any group, the kinds speak for the process.
    pub fleet: Fleet,
    /// What stdout carries; `Screen` is a line for each check.
    pub output: Output,
}

/// One process and what was found of it.
#[derive(Debug, Serialize)]
struct ProcessReport {
    pid: i32,
    /// The group that means it; none where none does.
    group: Option<String>,
    #[serde(with = "crate::exact")]
    exe: PathBuf,
    checks: Vec<Finding>,
    reloadable: bool,
}

/// What was asked for and is not there.
#[derive(Debug, Serialize)]
struct Missing {
    pid: Option<i32>,
    group: Option<String>,
    text: String,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    processes: Vec<ProcessReport>,
    missing: Vec<Missing>,
}

/// Looks; answers the exit code: 0 all can be reloaded, 5 one cannot, 3 what was asked for is not
/// there, 1 the kernel does not tell.
pub async fn run(options: Options) -> u8 {
    let examiner = match Examiner::new() {
        Ok(examiner) => examiner,
        Err(why) => {
            return cannot_look(options.output, &why);
        }
    };
    let answer = match Scan::take() {
        Ok(scan) => match options.pid {
            Some(pid) => Ok(one(pid, &options.fleet, &scan, &examiner).await),
            None => all(&options.fleet, &scan, &examiner).await,
        },
        Err(e) => Err(e.to_string()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            return cannot_look(options.output, &format!("cannot look at processes: {why}"));
        }
    };
    let missing = !answer.missing.is_empty() || answer.processes.is_empty();
    let code = match (missing, answer.processes.iter().all(|p| p.reloadable)) {
        (true, _) => 3,
        (false, true) => 0,
        (false, false) => 5,
    };
    answer.show(options.output, code);
    code
}

/// Ends a look that could not see.
fn cannot_look(output: Output, why: &str) -> u8 {
    screen::tell(&screen::failure(why));
    if output != Output::Screen {
        screen::data([refused(Verdict::Failed, why, &[], serde_json::Map::new())]);
    }
    Verdict::Failed.exit()
}

/// Every match of the fleet.
///
/// # Errors
/// Why this program cannot look at processes.
async fn all(fleet: &Fleet, scan: &Scan, examiner: &Examiner) -> Result<Answer, String> {
    let (mut answer, mut ask) = (Answer::default(), Vec::new());
    for (group, finds) in fleet
        .groups
        .iter()
        .zip(scan.find_all(fleet.groups.iter()).await)
    {
        let Finds {
            found,
            refused,
            workers,
            left_out,
            missing,
            blind,
        } = finds;
        if let Some(why) = blind {
            return Err(why);
        }
        let (sure, matched) = (found.len(), found.len() + refused.len());
        let missed = |pid: i32, text: String| Missing {
            pid: (pid > 0).then_some(pid),
            group: Some(group.name.clone()),
            text,
        };
        let counts = missing.is_empty();
        answer
            .missing
            .extend(missing.into_iter().map(|(pid, text)| missed(pid, text)));
        if counts && !group.count.holds(matched, sure) {
            answer.missing.push(missed(
                0,
                format!(
                    "group `{}` has {}, not {}",
                    group.name,
                    screen::counted(matched, "instance"),
                    group.count
                ),
            ));
        }
        for (pid, why) in left_out {
            screen::tell(&screen::worded("Left out", &format!("pid {pid} {why}")));
        }
        for found in found {
            let workers = workers
                .iter()
                .filter(|(_, leader)| *leader == found.pid)
                .map(|(worker, _)| *worker)
                .collect();
            ask.push((group, found, Ok(workers)));
        }
        ask.extend(
            refused
                .into_iter()
                .map(|(found, why)| (group, found, Err(why))),
        );
    }
    examiner.know(ask.iter().map(|(_, found, _)| found));
    let looks = ask.into_iter().map(|(group, found, role)| async move {
        let checks = examined(&found, group, role, vec![matched(group, fleet)], examiner).await;
        ProcessReport::new(found, Some(group), checks)
    });
    answer.processes = futures_util::future::join_all(looks).await;
    Ok(answer)
}

/// One process, in a group or not.
async fn one(pid: i32, fleet: &Fleet, scan: &Scan, examiner: &Examiner) -> Answer {
    let mut answer = Answer::default();
    let found = match discover::process(pid) {
        Ok(found) => found,
        Err(text) => {
            answer.missing.push(Missing {
                pid: Some(pid),
                group: None,
                text,
            });
            return answer;
        }
    };
    examiner.know(
        scan.find_all(fleet.groups.iter())
            .await
            .iter()
            .flat_map(|finds| &finds.found),
    );
    let mut standings = Vec::new();
    for group in &fleet.groups {
        standings.push((group, scan.membership(group, pid).await));
    }
    let rank = |standing: &Membership| match standing {
        Membership::Leads(..) | Membership::Refused(_) => 0,
        Membership::Works(_) => 1,
        Membership::LeftOut(_) => 2,
        Membership::NoMatch { .. } => 3,
    };
    // The first in file order of the best.
    standings.sort_by_key(|(_, standing)| rank(standing));
    let best = if standings
        .first()
        .is_some_and(|(_, standing)| rank(standing) < 3)
    {
        Some(standings.remove(0))
    } else {
        None
    };
    let patient = match best {
        Some((group, Membership::LeftOut(why))) => {
            let check = Finding::bad(Topic::Group, format!("group `{}`: {why}", group.name));
            let check = if group.users.is_empty() {
                check.then("say whose processes it means: `user = ..`")
            } else {
                check
            };
            let mut checks = vec![check];
            checks.extend(examiner.examine(&found, Some(group)).await);
            ProcessReport::new(found, Some(group), checks)
        }
        Some((group, standing)) => {
            let (found, role) = role(standing, found);
            let checks = examined(&found, group, role, vec![matched(group, fleet)], examiner).await;
            ProcessReport::new(found, Some(group), checks)
        }
        None => by_kind(scan, found, fleet, standings, examiner).await,
    };
    answer.processes.push(patient);
    answer
}

/// A group for each kind that there is.
fn groups_of_kinds() -> Vec<Group> {
    let all = KINDS
        .iter()
        .filter_map(|kind| Fleet::of_kind(kind.name).ok());
    all.flat_map(|fleet| fleet.groups).collect()
}

/// Why no group and no kind means a process, and what to do; `far` of the reasons are of groups of
/// other programs.
fn not_meant(found: &Found, reasons: &[String], far: usize) -> (String, &'static str) {
    let exe = if found.exe.as_os_str().is_empty() {
        "what it executes cannot be seen".into()
    } else {
        format!("it executes {}", found.exe.display())
    };
    let unseen = if nix::unistd::geteuid().is_root() {
        "give hello CAP_SYS_PTRACE, or run it where the process runs"
    } else {
        "run hello as root"
    };
    match (reasons.is_empty(), found.exe.as_os_str().is_empty()) {
        (true, false) => (exe, NEW_GROUP),
        (true, true) => (exe, unseen),
        (false, true) => (reasons.join("; "), unseen),
        // Groups of other programs say nothing of it.
        (false, false) if reasons.len() == far => (reasons.join("; "), NEW_GROUP),
        (false, false) => (
            reasons.join("; "),
            "start it as that asks, or mend the group",
        ),
    }
}

/// A process that no group of the fleet means: whether a kind would, and else what keeps the
/// nearest from it.
async fn by_kind(
    scan: &Scan,
    found: Found,
    fleet: &Fleet,
    standings: Vec<(&Group, Membership)>,
    examiner: &Examiner,
) -> ProcessReport {
    let few = standings.len() <= REPEATED;
    let mut reasons: Vec<String> = standings
        .iter()
        .filter_map(|(group, standing)| {
            skip_reason(&format!("group `{}`", group.name), standing, few)
        })
        .collect();
    let is_far = |(_, standing): &&(&Group, Membership)| {
        matches!(standing, Membership::NoMatch { near: false, .. })
    };
    let far = if few {
        standings.iter().filter(is_far).count()
    } else {
        0
    };
    let (mut meant, mut lone) = (Vec::new(), None);
    let groups = groups_of_kinds();
    for group in &groups {
        match scan.membership(group, found.pid).await {
            standing @ (Membership::Leads(..) | Membership::Refused(_) | Membership::Works(_)) => {
                meant.push(format!("`{}`", group.name));
                lone.get_or_insert((group, standing));
            }
            standing => reasons.extend(skip_reason(
                &format!("kind `{}`", group.name),
                &standing,
                false,
            )),
        }
    }
    let none = fleet.path.as_ref().map_or_else(
        || "no fleet.toml is in use".to_owned(),
        |path| format!("no group of {} means it", path.display()),
    );
    let Some((group, standing)) = lone else {
        let (reasons, next) = not_meant(&found, &reasons, far);
        let mut checks = vec![
            Finding::bad(
                Topic::Group,
                format!("{none}, and no kind means it: {reasons}"),
            )
            .then(next),
        ];
        checks.extend(examiner.examine(&found, None).await);
        return ProcessReport::new(found, None, checks);
    };
    let (kinds, name) = (format!("kind {}", meant.join(" or ")), &group.name);
    let (reasons, mend) = if reasons.is_empty() {
        (String::new(), "")
    } else {
        (
            format!(" ({})", reasons.join("; ")),
            "mend that group, or add one: ",
        )
    };
    let by_name = fleet.path.is_none() && fleet.groups.is_empty();
    let mut check = if by_name {
        Finding::good(
            Topic::Group,
            format!("{kinds} means it (no fleet.toml is in use)"),
        )
    } else {
        Finding::bad(Topic::Group, format!("{none}{reasons}, but {kinds} would"))
            .then(format!("{mend}`hello kinds {name}` prints a group for it"))
    };
    if by_name && meant.len() > 1 {
        let others: Vec<String> = meant
            .iter()
            .skip(1)
            .map(|kind| format!("`hello doctor {} {}`", found.pid, kind.trim_matches('`')))
            .collect();
        check = check.then(format!(
            "as `{name}` it is looked at here; as another: {}",
            others.join(", ")
        ));
    }
    let (found, role) = role(standing, found);
    examiner.know(&scan.find(group).await.found);
    let checks = examined(&found, group, role, vec![check], examiner).await;
    ProcessReport::new(found, by_name.then_some(group), checks)
}

/// What keeps a process out, where something of it fits, or where it is said of `all`.
fn skip_reason(whose: &str, standing: &Membership, all: bool) -> Option<String> {
    match standing {
        Membership::LeftOut(why) => Some(format!("{whose}: it {why}")),
        Membership::NoMatch { why, near } if *near || all => Some(format!("{whose}: it {why}")),
        _ => None,
    }
}

/// Its workers, or why it takes no signal.
fn role(standing: Membership, found: Found) -> (Found, Result<Vec<i32>, String>) {
    let pid = |leader| {
        format!(
            "is a worker of pid {leader}, which takes the signal for it; look at that one: `hello \
             doctor {leader}`"
        )
    };
    match standing {
        Membership::Leads(found, workers) => (found, Ok(workers)),
        Membership::Works(leader) => (found, Err(pid(leader))),
        Membership::Refused(why) | Membership::LeftOut(why) | Membership::NoMatch { why, .. } => {
            (found, Err(why))
        }
    }
}

fn matched(group: &Group, fleet: &Fleet) -> Finding {
    let kind = group
        .kind
        .as_ref()
        .map_or(String::new(), |kind| format!(" (kind `{kind}`)"));
    Finding::good(
        Topic::Group,
        match &fleet.path {
            Some(path) => format!(
                "group `{}`{kind} of {} means it",
                group.name,
                path.display()
            ),
            None => format!("kind `{}` means it (no fleet.toml is in use)", group.name),
        },
    )
}

/// Its role, and what follows from it: of one that is never signalled, nothing else matters.
async fn examined(
    found: &Found,
    group: &Group,
    role: Result<Vec<i32>, String>,
    mut checks: Vec<Finding>,
    examiner: &Examiner,
) -> Vec<Finding> {
    match role {
        Ok(workers) => {
            let workers: Vec<String> = workers.iter().map(i32::to_string).collect();
            let whom = if workers.is_empty() {
                String::new()
            } else {
                format!(", for its workers too: pid {}", workers.join(", "))
            };
            checks.push(Finding::good(
                Topic::Role,
                format!("takes the signal{whom}"),
            ));
            checks.extend(examiner.examine(found, Some(group)).await);
        }
        Err(why) => checks.push(Finding::refused(Topic::Role, &why)),
    }
    checks
}

impl ProcessReport {
    fn new(found: Found, group: Option<&Group>, checks: Vec<Finding>) -> Self {
        let reloadable = !checks.iter().any(|c| c.ok == Some(false));
        Self {
            pid: found.pid,
            group: group.map(|g| g.name.clone()),
            exe: found.exe,
            checks,
            reloadable,
        }
    }

    /// A line for each check, and whether it can be reloaded.
    fn lines(&self) -> Vec<String> {
        let line = screen::worded;
        let mut lines = vec![line(
            "Process",
            format!("pid {} {}", self.pid, self.exe.display()).trim_end(),
        )];
        for check in &self.checks {
            let mark = match check.ok {
                Some(true) => "ok",
                Some(false) => "NO",
                None => "--",
            };
            let next = check
                .next
                .as_ref()
                .map_or(String::new(), |next| format!("; {next}"));
            lines.push(line(
                check.topic.proof_word(),
                &format!("{mark} {}{next}", check.text),
            ));
        }
        let bad: Vec<&str> = self
            .checks
            .iter()
            .filter(|c| c.ok == Some(false))
            .map(|c| c.text.lines().next().unwrap_or_default())
            .collect();
        let more = if bad.len() > REPEATED {
            format!("; and {} more", bad.len() - REPEATED)
        } else {
            String::new()
        };
        let said = match self.reloadable {
            true => "can be reloaded".to_owned(),
            false => format!(
                "cannot be reloaded: {}{more}",
                bad.iter()
                    .take(REPEATED)
                    .copied()
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
        };
        lines.push(line("Result", &format!("pid {} {said}", self.pid)));
        lines
    }
}

impl Answer {
    fn show(&self, output: Output, code: u8) {
        if output == Output::Screen {
            screen::answer(self.processes.iter().flat_map(ProcessReport::lines));
            let (all, can) = (
                self.processes.len(),
                self.processes.iter().filter(|p| p.reloadable).count(),
            );
            if all > 1 {
                screen::answer([screen::worded(
                    "Summary",
                    &format!(
                        "{all} processes: {can} can be reloaded, {} cannot",
                        all - can
                    ),
                )]);
            }
        } else {
            screen::data([serde_json::json!({
                "v": 1,
                "dry_run": false,
                "exit": code,
                "next": [],
                "processes": self.processes,
                "missing": self.missing,
            })]);
        }
        for missing in &self.missing {
            let who = missing
                .pid
                .map_or(String::new(), |pid| format!("pid {pid} "));
            screen::tell(&screen::failure(&format!("{who}{}", missing.text)));
        }
    }
}
