//! Checks of the process itself: its signal, permission, state, namespaces and program.

use std::time::Duration;

use super::finding::{Finding, Topic};
use crate::{
    fleet::{Group, Signal, Trigger},
    host::{
        discover::{found::Found, renewal},
        local::{
            guards::{check_declared, check_not_stopped, may_signal},
            reload_command,
        },
        proc::guard::{self, Disposition, Namespace},
    },
    identity::Renewal,
    kernel,
    step::PlannedInstance,
};

/// The longest wait for the signal handler of a process that re-executes itself or has just
/// started.
const HANDLER: Duration = Duration::from_secs(1);

/// Why a signal handler alone proves nothing.
const HANDLER_PROVES_NOTHING: &str = "which proves nothing while no group or kind declares that it \
                                      reloads: the runtimes of Go and Java catch the signal in \
                                      every program, and exit on it all the same";

/// Checks that a group or kind declares that the process reloads on the signal.
pub(super) fn declared(signal: Signal, group: Option<&Group>) -> Finding {
    let Some(group) = group else {
        let text = format!(
            "no group or kind declares what it does on {}",
            signal.name()
        );
        return Finding::note(Topic::Reloads, text);
    };
    let declared_by = group.kind.as_ref().map_or_else(
        || format!("group `{}`", group.name),
        |kind| format!("kind `{kind}`"),
    );
    Finding::of(
        Topic::Reloads,
        check_declared(group),
        format!(
            "{declared_by} declares that it reloads on {}",
            signal.name()
        ),
    )
}

/// Checks that the command of its group can be run for the process; none if it reloads on a signal.
pub(super) fn command(planned: &PlannedInstance) -> Option<Finding> {
    match planned.group.trigger() {
        Trigger::Signal(_) => None,
        trigger @ Trigger::Command(_) => Some(Finding::of(
            Topic::Reloads,
            reload_command::check(planned),
            format!("by {trigger}"),
        )),
    }
}

/// Checks how the process reacts to the signal. A handler proves nothing unless a group or kind
/// declares that the program reloads.
pub(super) async fn signal(pid: i32, signal: Signal, group: Option<&Group>) -> Finding {
    let name = signal.name();
    if let Some(group) = group
        && let Err(why) =
            guard::wait_for_handler(pid, group, guard::handler_grace_period(pid, HANDLER)).await
    {
        let finding = Finding::bad(Topic::Signal, why.to_string());
        return match guard::disposition(pid, signal) {
            Ok(Disposition::Ignored) => finding.then(format!(
                "start it without nohup, and from a parent that does not ignore {name}"
            )),
            Ok(Disposition::Default) => finding.then(
                "if one of its threads waits in sigwait, set `reloads = \"unchecked\"`; else it \
                 can only be restarted",
            ),
            _ => finding,
        };
    }
    let is_declared = group.is_some_and(|group| check_declared(group).is_ok());
    match guard::disposition(pid, signal) {
        Err(why) => Finding::bad(Topic::Signal, why.to_string()),
        Ok(disposition) if is_declared => declared_disposition(disposition, name),
        Ok(disposition) => undeclared_disposition(disposition, name),
    }
}

/// Returns the finding for a process that is declared to reload.
fn declared_disposition(disposition: Disposition, name: &str) -> Finding {
    match disposition {
        Disposition::Caught => Finding::good(Topic::Signal, format!("has a handler for {name}")),
        Disposition::Awaited => {
            Finding::good(Topic::Signal, format!("waits for {name} in a signalfd"))
        }
        Disposition::InSigwait => {
            Finding::good(Topic::Signal, format!("waits for {name} in sigwait"))
        }
        Disposition::Blocked => {
            let text = format!(
                "has a handler for {name}, and blocks it at the moment: the signal is pending \
                 until it does not"
            );
            Finding::note(Topic::Signal, text)
        }
        // Only a group with `reloads = "unchecked"` gets here: its handler need not be visible.
        Disposition::Default => {
            let text = format!(
                "shows no handler for {name}, and its group declares that it waits in sigwait"
            );
            Finding::note(Topic::Signal, text)
        }
        Disposition::Ignored => Finding::bad(Topic::Signal, format!("ignores {name}")),
    }
}

/// Returns the finding for a process of which no group declares that it reloads.
fn undeclared_disposition(disposition: Disposition, name: &str) -> Finding {
    match disposition {
        Disposition::Caught | Disposition::Awaited | Disposition::InSigwait => {
            let text = format!("has a handler for {name}, {HANDLER_PROVES_NOTHING}");
            Finding::note(Topic::Signal, text)
        }
        Disposition::Default => {
            let text = format!("has no handler for {name} and would die of it");
            Finding::bad(Topic::Signal, text)
        }
        Disposition::Blocked => {
            Finding::bad(Topic::Signal, format!("blocks {name} in every thread"))
        }
        Disposition::Ignored => Finding::bad(Topic::Signal, format!("ignores {name}")),
    }
}

/// Checks that this user may send the signal.
pub(super) fn permission(found: &Found) -> Finding {
    let good = format!("may be signalled by uid {}", nix::unistd::geteuid());
    let finding = Finding::of(Topic::Permission, may_signal(found.pid), good);
    if finding.ok == Some(false) {
        finding.then(format!("run hello as uid {} or as root", found.uid))
    } else {
        finding
    }
}

/// Checks that the process is not stopped.
pub(super) fn state(pid: i32) -> Finding {
    Finding::of(Topic::State, check_not_stopped(pid), "runs")
}

/// Returns whether the process shares the mounts of this host.
pub(super) fn mounts(pid: i32) -> Finding {
    match guard::shares(pid, Namespace::Mount) {
        Some(true) => Finding::good(Topic::Mounts, "sees the mounts of this host"),
        Some(false) => Finding::note(
            Topic::Mounts,
            "has a mount namespace of its own: its view of the config's path is compared",
        ),
        None => Finding::note(
            Topic::Mounts,
            "its mount namespace cannot be seen by this user",
        ),
    }
}

/// Checks that this host can probe the process; it decides only where a probe `is_needed`.
pub(super) fn network(pid: i32, is_needed: bool) -> Finding {
    match guard::shares(pid, Namespace::Network) {
        Some(true) => Finding::good(Topic::Network, "is in the network of this host"),
        None => Finding::note(
            Topic::Network,
            "its network namespace cannot be seen by this user",
        ),
        Some(false) => {
            let finding = Finding::bad(
                Topic::Network,
                "is in another network namespace, where this host cannot probe it",
            )
            .then_run(
                "run hello inside it, such as:",
                vec![format!("nsenter --target {pid} --net hello doctor {pid}")],
            );
            if is_needed {
                finding
            } else {
                finding.undecided()
            }
        }
    }
}

/// Checks whether the program changed since the process started. None if the same one is still at
/// its path.
pub(super) fn program(found: &Found, group: &Group) -> Option<Finding> {
    let renewal = found.identity(group).renewal;
    if let Some(why) = renewal::refuses(&renewal, group) {
        return Some(Finding::refused(Topic::Program, &why));
    }
    let exe = kernel::strip_deleted(&found.exe);
    match renewal {
        Renewal::Another(path, _) => {
            let text = format!(
                "executes `{}` again on {}, another program than it runs: that one validates its \
                 config",
                path.display(),
                group.trigger()
            );
            Some(Finding::note(Topic::Program, text))
        }
        Renewal::None if exe != found.exe => {
            let text = format!(
                "`{}` was replaced or removed since it started: it still runs the old program, \
                 which validates its config",
                exe.display()
            );
            Some(Finding::note(Topic::Program, text).then("restart it to run another"))
        }
        _ => None,
    }
}
