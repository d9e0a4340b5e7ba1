//! Faults of a process that lives: it is stopped, or it no longer listens. They can be seen even of
//! an instance of which nothing is proven.

use std::time::Duration;

use crate::{
    event::{Failure, Outcome},
    host::{
        net::sockets::SocketsError,
        probe::{
            answer::KernelError,
            limits::{LISTENERS_MAX_AGE, ProbeLimits},
        },
        proc::{guard, tree::lives},
    },
    step::PlannedInstance,
};

/// The end of the message where the sockets of an instance cannot be read.
const WHETHER_LISTENS: &str = "whether it still listens";

/// Tells whether the instance or a descendant of it listens on any address. One in another network
/// namespace, or that has ended, has no address of this host.
///
/// # Errors
/// Fails if the kernel does not tell.
pub(crate) fn listens(
    member: &PlannedInstance,
    limits: &ProbeLimits,
    max_age: Duration,
) -> Result<bool, KernelError> {
    let pid = member.instance.pid;
    match limits.listeners(max_age)?.listens_anywhere(pid) {
        Err(SocketsError::OtherNetwork) => Ok(false),
        Err(_) if lives(pid).is_ok_and(|stat| stat.is_none()) => Ok(false),
        listens => Ok(listens?),
    }
}

/// Returns the fault of an instance that lives and is not proven, or `None` if it is as it was
/// before its signal.
pub(crate) fn fault(member: &PlannedInstance, limits: &ProbeLimits) -> Option<Failure> {
    let failure = |text: &str| {
        Some(Failure {
            kind: Outcome::TimedOut.into(),
            text: text.into(),
        })
    };
    let pid = member.instance.pid;
    match guard::is_stopped(pid) {
        Ok(false) => {}
        Ok(true) => return failure("it is stopped since its signal"),
        Err(e) => {
            return Some(KernelError::Process(pid, e).cannot_tell("whether it is stopped"));
        }
    }
    // A socket that was opened a moment ago is only in a fresh read of the tables.
    let listened_lately = || matches!(listens(member, limits, LISTENERS_MAX_AGE), Ok(true));
    if !member.listened || listened_lately() {
        return None;
    }
    match listens(member, limits, Duration::ZERO) {
        Ok(true) => None,
        Ok(false) => failure("it listened before its signal, and does not listen now"),
        Err(why) => Some(why.cannot_tell(WHETHER_LISTENS)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::Instance,
        fleet::Fleet,
        tests::unprivileged::{HIDDEN, unprivileged},
    };

    #[test]
    fn an_instance_that_listened_and_cannot_be_read_now_has_a_fault() {
        let group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
        let instance = Instance::new("web", HIDDEN, 1);
        let mut member = PlannedInstance::new(instance, Arc::new(group), Vec::new());
        let limits = ProbeLimits::default();
        let read = || unprivileged(|| fault(&member, &limits));
        assert!(read().is_none(), "nothing was known of its sockets");
        member.listened = true;
        let text = unprivileged(|| fault(&member, &limits)).unwrap().text;
        assert!(
            text.starts_with("cannot tell whether it still listens: "),
            "{text}"
        );
        assert!(text.ends_with("run `hello` as root, or as a user that may inspect that process"));
    }

    #[test]
    fn whether_an_instance_listens_is_not_known_where_its_sockets_cannot_be_read() {
        let group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
        let instance = Instance::new("web", HIDDEN, 1);
        let member = PlannedInstance::new(instance, Arc::new(group), Vec::new());
        let limits = ProbeLimits::default();
        assert!(unprivileged(|| listens(&member, &limits, Duration::ZERO)).is_err());
        let mut ended = member;
        ended.instance.pid = i32::MAX;
        assert!(!listens(&ended, &limits, Duration::ZERO).unwrap());
    }
}
