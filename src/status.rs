//! `hello status`: which processes do not run the config on their disk, and which would not survive
//! their next reload. Reads only.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    event::Verdict,
    fact::{Expectation, Showing},
    fleet::{Group, Reloads, Speaks},
    host::{
        discover::{self, Scan, found::Found},
        local::survey::{check_exclusive_address, take_baseline},
        net::sockets::Listeners,
        probe::limits::{ProbeLimits, self_report},
        proc::{guard, inside::is_its_name},
        target::as_started::is_as_it_started,
        validate::{
            current::{CurrentTarget, ValidationCache},
            restart::{self, quoted},
            run::ValidationError,
            verdicts::cannot_judge,
        },
    },
    report::{Output, refused},
    runs::{LastSeen, ProofCache},
    screen,
    step::PlannedInstance,
};

mod faults;
mod options;
mod row;

pub use self::options::Options;
use self::{
    faults::{Findings, GroupRow},
    row::{KnownBy, Row, RowTarget},
};

/// The kernel counts starts in ticks, and a process is told as born rather too early, in
/// nanoseconds: what changed within this may have been read.
const SURELY: i128 = 50_000_000;

/// What all instances are looked at with.
struct StatusProbe {
    listeners: Listeners,
    lanes: ProbeLimits,
    judged: ValidationCache,
    proven: ProofCache,
    /// By the directory of a target: the run that holds its lock.
    locks: RefCell<BTreeMap<PathBuf, Option<String>>>,
}

/// Looks at every instance; answers the exit code: 0 all agree, 7 not, 3 nothing was found, 9 a run
/// is under way.
pub async fn run(options: Options) -> u8 {
    // What this program cannot see is no fact about an instance.
    let (scan, listeners) = match Scan::take().and_then(|scan| Ok((scan, Listeners::read()?))) {
        Ok(seen) => seen,
        Err(e) => {
            return cannot_look(
                &options,
                &format!("the kernel does not tell of processes and their sockets: {e}"),
            );
        }
    };
    let look = StatusProbe {
        listeners,
        lanes: ProbeLimits::default(),
        judged: ValidationCache::default(),
        proven: options
            .state
            .as_deref()
            .map(ProofCache::load)
            .unwrap_or_default(),
        locks: RefCell::default(),
    };
    let last = options
        .state
        .as_deref()
        .map(LastSeen::load)
        .unwrap_or_default();
    let groups = &options.fleet.groups;
    let (mut rows, mut findings, mut left_out) = (Vec::new(), Findings::default(), Vec::new());
    let all = scan.find_all(groups.iter()).await;
    if let Some(why) = all.iter().find_map(|seen| seen.blind.as_ref()) {
        return cannot_look(&options, &format!("cannot look at processes: {why}"));
    }
    look.lanes.add_known(
        all.iter()
            .flat_map(|seen| &seen.found)
            .map(|f| (f.pid, f.started)),
    );
    for (group, seen) in groups.iter().zip(all) {
        let (sure, found) = (seen.found.len(), seen.found.len() + seen.refused.len());
        rows.extend(
            futures_util::future::join_all(seen.found.iter().map(|f| look.at(group, f))).await,
        );
        // Who is not in the fleet cannot disagree with it; people are told, so that nobody thinks
        // it was looked at.
        for (pid, why) in seen.left_out.iter().filter(|_| !options.quiet) {
            screen::tell(&screen::worded("Left out", &format!("pid {pid} {why}")));
        }
        left_out.extend(seen.left_out);
        let refused = seen
            .refused
            .into_iter()
            .map(|(f, why)| (f.pid, f.started, why));
        for (pid, started, why) in
            refused.chain(seen.missing.into_iter().map(|(pid, why)| (pid, 0, why)))
        {
            let mut row = Row::new(group, pid, started);
            row.faults.push(why);
            rows.push(row);
        }
        findings
            .groups
            .push(GroupRow::of(group, (found, sure), &rows, &last));
    }
    findings.runs(
        &options,
        &rows,
        look.locks.into_inner().into_values().flatten().collect(),
    );
    findings.show(&options, &rows, &left_out)
}

/// Ends a look that could not see.
fn cannot_look(options: &Options, why: &str) -> u8 {
    screen::tell(&screen::failure(why));
    if options.output != Output::Screen {
        screen::data([refused(Verdict::Failed, why, &[], serde_json::Map::new())]);
    }
    Verdict::Failed.exit()
}

impl StatusProbe {
    async fn at(&self, group: &Group, found: &Found) -> Row {
        let mut row = Row::new(group, found.pid, found.started);
        if group.reloads == Reloads::No {
            row.faults.push(format!(
                "nobody says that it reloads on {}",
                group.signal.name()
            ));
        }
        // One that blocks it at this moment, as PostgreSQL does for every new connection, takes it
        // at the next.
        if let Err(why) = guard::wait_for_handler(found.pid, group, Duration::ZERO).await {
            row.faults
                .push(format!("would not take the signal: it {why}"));
        }
        if guard::is_stopped(found.pid) {
            row.faults.push("is stopped".into());
        }
        match found.endpoint.clone().map_or_else(
            || self.listeners.endpoint(found.pid, &found.args, group),
            Ok,
        ) {
            Ok(endpoint) => {
                row.faults.extend(
                    check_exclusive_address(found, &endpoint, &self.listeners, &self.lanes).err(),
                );
                row.endpoint = Some(endpoint);
            }
            Err(why) if group.needs_endpoint() => row.faults.push(why),
            // Nobody asks it there.
            Err(_) => {}
        }
        let mut instance = found.instance(&group.name);
        instance.endpoint = row.endpoint.clone().unwrap_or_default();
        let live = CurrentTarget::of(found, group).await;
        row.faults.extend(live.as_ref().err().cloned());
        let (known, live) = (live.is_ok(), live.unwrap_or_default());
        instance.targets = live.iter().map(|l| l.path.clone()).collect();
        for one in &live {
            let dir = one.path.parent().unwrap_or(Path::new("/")).to_owned();
            self.locks
                .borrow_mut()
                .entry(dir)
                .or_insert_with(|| one.lock_owner());
        }
        let mut member =
            PlannedInstance::new(instance, Arc::new(group.clone()), found.args.clone());
        member.identity = found.identity(group);
        member.cwd = std::fs::read_link(format!("/proc/{}/cwd", found.pid)).unwrap_or_default();
        self.targets(&mut row, group, found, &live);
        match group.speaks {
            Speaks::Hello => self.tells(&mut row, found).await,
            Speaks::None => self.shows(&mut row, &mut member, &live).await,
        }
        if !group.validate.is_empty() && known {
            self.validated(&mut row, &member, &live).await;
        }
        if let Some(first) = row.targets.first() {
            (row.path, row.disk) = (Some(first.path.clone()), first.disk.clone());
            row.runs = row.runs.take().or_else(|| first.runs.clone());
        }
        row
    }

    /// Asks the validator of what stands on the disk. One that refuses what its instance runs
    /// cannot judge here.
    async fn validated(&self, row: &mut Row, member: &PlannedInstance, live: &[CurrentTarget]) {
        let is_proven = |target: &RowTarget, one: &CurrentTarget| {
            let is_same = || {
                self.proven
                    .of(row.pid, row.started, &one.path)
                    .is_none_or(|stand| stand.behind.is_some() && stand.behind == one.behind)
            };
            target.runs.is_some() && target.runs == target.disk && is_same()
        };
        let is_run = |(target, one): (&RowTarget, &CurrentTarget)| {
            is_proven(target, one) || is_as_it_started(member, &one.path)
        };
        let runs_it = !live.is_empty() && row.targets.iter().zip(live).all(is_run);
        match self.judged.of(member, live).await.0 {
            Ok(_) => {}
            Err(ValidationError::Refused(why)) if runs_it => {
                row.unvalidated = Some(cannot_judge(&why))
            }
            Err(ValidationError::Refused(why)) => {
                row.faults.push(format!("waiting to fail: {why}"))
            }
            // It has not refused.
            Err(ValidationError::NotRun(why)) => row.unvalidated = Some(why),
        }
    }

    /// What is known of each target without asking.
    fn targets(&self, row: &mut Row, group: &Group, found: &Found, live: &[CurrentTarget]) {
        let (fixed, born) = (
            discover::fixed_of(found, group),
            guard::start_time_ns(found.pid).unwrap_or(i128::MIN),
        );
        let newer = |path: &Path, at: Option<i128>, born: i128| {
            at.or_else(|| changed_at(path)).is_some_and(|at| at >= born)
        };
        for path in &fixed {
            let at = live.iter().find(|l| l.path == *path).and_then(|l| l.ctime);
            if newer(path, at, born + SURELY) {
                let path = path.display();
                row.faults.push(format!(
                    "`{path}` was changed after it started, and it reads that only \
                                   then: it runs an older config than its disk: restart it"
                ));
            }
        }
        for one in live {
            if let Err(why) = &one.disk {
                row.faults.push(why.clone());
            }
            let disk = one.sha256().map(str::to_owned);
            let stand = self.proven.of(found.pid, found.started, &one.path);
            let (runs, known) = match stand {
                _ if fixed.contains(&one.path) && newer(&one.path, one.ctime, born) => {
                    (None, KnownBy::No)
                }
                _ if fixed.contains(&one.path) => (disk.clone(), KnownBy::Started),
                // It may have been another one in between, and been read.
                Some(stand)
                    if one.sha256() == Some(&stand.sha256) && one.ctime != Some(stand.ctime) =>
                {
                    (None, KnownBy::No)
                }
                Some(stand) => (Some(stand.sha256.clone()), KnownBy::Proven),
                None => (None, KnownBy::No),
            };
            if known == KnownBy::Proven && runs != disk {
                row.faults.push(format!(
                    "`{}` on disk was changed after it was proven",
                    one.path.display()
                ));
            }
            if let Some(stand) = stand.filter(|stand| {
                known == KnownBy::Proven && stand.behind.is_some() && stand.behind != one.behind
            }) {
                let what = if stand.behind.as_deref() == Some("") {
                    "is read now"
                } else {
                    "was changed"
                };
                row.faults.push(format!(
                    "content that is read through `{}` (a link or an include) \
                    {what} since it was proven",
                    one.path.display()
                ));
            }
            row.targets.push(RowTarget {
                path: one.path.clone(),
                disk,
                runs,
                known,
            });
        }
    }

    /// What one says itself that speaks our protocol; of several targets that is the first.
    async fn tells(&self, row: &mut Row, found: &Found) {
        let Some(endpoint) = &row.endpoint else {
            return;
        };
        match self_report(endpoint, &self.lanes).await {
            Err(why) => row.faults.push(why),
            Ok(told)
                if !is_its_name(
                    found.pid,
                    found.started,
                    (told.instance.pid, told.instance.started),
                ) =>
            {
                row.faults.push(format!(
                    "its endpoint is answered by pid {}",
                    told.instance.pid
                ));
            }
            Ok(told) => {
                row.age_s =
                    Some(jiff::Timestamp::now().as_second() - told.effective.loaded_at.as_second());
                row.generation = Some(told.effective.generation);
                row.runs = Some(told.effective.sha256.clone());
                if let Some(first) = row.targets.first_mut() {
                    if first
                        .disk
                        .as_ref()
                        .is_some_and(|d| *d != told.effective.sha256)
                    {
                        row.faults
                            .push("does not run the config on its disk".into());
                    }
                    (first.runs, first.known) = (Some(told.effective.sha256), KnownBy::SelfReport);
                }
            }
        }
    }

    /// Whether keys wait for a restart, the facts of its group can be read and hold, and none says
    /// that its last reload was refused.
    async fn shows(&self, row: &mut Row, member: &mut PlannedInstance, live: &[CurrentTarget]) {
        match restart::pending(member).await {
            Ok(keys) if keys.is_empty() => {}
            Ok(keys) => row.faults.push(format!(
                "runs an older config than its disk: a restart is needed for {}",
                quoted(&keys)
            )),
            Err(why) => row.faults.push(why),
        }
        let group = member.group.clone();
        if (group.confirm.is_empty() && group.reject.is_empty())
            || (group.needs_endpoint() && row.endpoint.is_none())
        {
            return;
        }
        if let Err(silence) = take_baseline(member, &self.listeners, &self.lanes).await {
            row.faults.push(silence.message);
        }
        row.faults.extend(unheld(member, live));
        let refused = group
            .reject
            .iter()
            .zip(&member.rejected)
            .find(|(fact, now)| {
                let holds = |now: &String| fact.holds_alone(now);
                !fact.needs_baseline() && now.as_ref().is_some_and(holds)
            });
        if let Some((fact, _)) = refused {
            row.faults.push(format!(
                "{} says that its last reload was refused",
                fact.source.describe(&member.instance.endpoint)
            ));
        }
    }
}

/// An assertion that is taken from the config on the disk and does not hold. A literal may be what
/// the next config is to show.
fn unheld(member: &PlannedInstance, live: &[CurrentTarget]) -> Option<String> {
    let bytes = live.first().and_then(|one| one.disk.as_ref().ok()?.file());
    let showing = if live.iter().any(|one| one.secret) {
        Showing::Secret
    } else {
        Showing::Open
    };
    member
        .group
        .confirm
        .iter()
        .zip(&member.baseline)
        .find_map(|(fact, now)| {
            let filled = fact.resolved(bytes).ok()?;
            let is_plain = matches!(
                filled.expectation,
                Expectation::Equals(_) | Expectation::Contains(_)
            );
            let counts = is_plain && filled.expectation != fact.expectation;
            let now = now
                .as_deref()
                .filter(|now| counts && !filled.holds_alone(now))?;
            let showing = showing.of(&fact.source);
            Some(format!(
                "{} {}",
                fact.source.describe(&member.instance.endpoint),
                filled.unmet(Some(now), showing)
            ))
        })
}

/// The last change of any kind, in nanoseconds since 1970.
fn changed_at(path: &Path) -> Option<i128> {
    let meta = path.symlink_metadata().ok()?;
    Some(i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()))
}
