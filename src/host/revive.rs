//! A program that ended on a config that it could not load: how it was started, and how it is started again once the old config is back.

use std::{path::PathBuf, time::Duration};

use crate::{
    event::{State, Trouble},
    host::{
        exec::{quoted, start, typed},
        http::Lanes,
        placeholders::Known,
        successor::{self, Fresh},
    },
    identity::Sees,
    step::Member,
};

/// Between two looks for the new process.
const PAUSE: Duration = Duration::from_millis(50);

/// What a person types to start `member` again: its unit, else the command line that it had, as the user that it ran as. None
/// where that would give it more than it had.
pub(super) fn command(member: &Member) -> Option<String> {
    let (person, cwd) = (&member.identity.person, &member.cwd);
    if let Some(unit) = &member.group.matching.unit {
        return Some(quoted(&["systemctl".into(), "start".into(), unit.clone()]));
    }
    if member.identity.sees == Sees::Another {
        return None;
    }
    if !member.group.revive.is_empty() {
        return typed(&filled(member).unwrap_or_else(|_| member.group.revive.clone()), person, cwd);
    }
    let exe = member.instance.exe.display().to_string();
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    // A rewritten title may hold the command between words about its state.
    let own = member.args.iter().position(|word| name(word) == name(&exe));
    let words: Vec<String> = match own {
        Some(at) => member.args.iter().skip(at + 1).take_while(|word| !word.starts_with('[')).cloned().collect(),
        None => member.args.to_vec(),
    };
    let argv: Vec<String> = std::iter::once(exe.trim_end_matches(" (deleted)").to_owned()).chain(words).collect();
    typed(&argv, person, cwd)
}

/// The group's `revive`, for this instance.
fn filled(member: &Member) -> Result<Vec<String>, String> {
    let i = &member.instance;
    let config = i.targets.first().map(PathBuf::as_path);
    Known { pid: i.pid, exe: &i.exe, args: &member.args, endpoint: &i.endpoint, config, candidate: config }.fill(&member.group.revive)
}

/// Starts `member` again by its group's `revive`, as the user that it ran as and in a session of its own, and waits for the new
/// process to prove the old config.
///
/// # Errors
/// The trouble: it could not be started, nothing new is there, or it proves nothing.
pub(super) async fn revive(member: &Member, fresh: Fresh<'_>, lanes: &Lanes) -> Result<Member, Trouble> {
    let trouble = |text: String| Trouble { kind: State::RevertFailed.into(), text };
    let i = &member.instance;
    let argv = filled(member).map_err(trouble)?;
    let said = || quoted(&argv);
    if member.identity.sees != Sees::TheSame {
        let why = "it ran in namespaces or below a root directory of its own, in which nothing is started";
        return Err(trouble(format!("`{}` could not be run: {why}", said())));
    }
    let begun = start(&argv, &member.identity.person, &member.cwd).await;
    let mut child = begun.map_err(|why| trouble(format!("`{}` could not be run: {why}", said())))?;
    let began = std::time::Instant::now();
    let mut ended = None;
    loop {
        let late = began.elapsed() >= member.timeout;
        ended = ended.or(child.try_wait().ok().flatten());
        let newest = lanes.newest(fresh.surveyed, PAUSE);
        if let Some(found) = successor::unknown(member, &newest, lanes).await.into_iter().next() {
            lanes.know([(found.pid, found.started)]);
            let mut new = successor::prove(&found, member, fresh, member.timeout, lanes).await?;
            new.instance.successor_of = Some(i.pid);
            new.instance.trouble.clone_from(&i.trouble);
            return Ok(new);
        }
        match ended {
            Some(status) if !status.success() => return Err(trouble(format!("`{}` ended ({status}), and no new process is there", said()))),
            _ if late => return Err(trouble(format!("`{}` has started no process of group `{}` within {:?}", said(), i.group, member.timeout))),
            _ => tokio::time::sleep(PAUSE).await,
        }
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
        identity::{Identity, Person},
    };

    #[test]
    fn what_to_type_is_what_it_was_started_by() {
        let me = nix::unistd::geteuid().as_raw();
        let own = Person { uids: [me; 3], permitted: u64::MAX, bounding: u64::MAX, ..Person::default() };
        let typed = |person: &Person, exe: &str, line: &str, unit: Option<&str>| {
            let mut group = Fleet::of_kind("sshd").unwrap().groups.remove(0);
            group.matching.unit = unit.map(str::to_owned);
            let instance = Instance { exe: exe.into(), ..Instance::new("sshd", 7, 1) };
            let args = line.split('|').map(str::to_owned).collect();
            let identity = Identity { person: person.clone().into(), ..Identity::default() };
            command(&Member { cwd: "/srv/my app".into(), identity, ..Member::new(instance, Arc::new(group), args) })
        };
        let title = "/usr/sbin/sshd|-D|-f|/a|[listener]|0|of|10-100|startups";
        let text = |line: &str| Some(line.to_owned());
        assert_eq!(typed(&own, "/usr/sbin/sshd", title, None), text("cd '/srv/my app' && /usr/sbin/sshd -D -f /a"));
        assert_eq!(
            typed(&own, "/usr/bin/python3.11", "/usr/bin/gunicorn|-c|it's.py", None),
            text(r"cd '/srv/my app' && /usr/bin/python3.11 /usr/bin/gunicorn -c 'it'\''s.py'")
        );
        assert_eq!(typed(&own, "/usr/sbin/sshd", title, Some("ssh.service")), text("systemctl start ssh.service"));
        // Of another user it is that user's, and never more than it was.
        let other = Person { uids: [me + 7; 3], gids: [8; 3], ..Person::default() };
        let line = format!("setpriv --reuid {} --regid 8 --clear-groups -- env -C '/srv/my app' /x -y '$(id)'", me + 7);
        assert_eq!(typed(&other, "/x", "/x|-y|$(id)", None), Some(line));
        let grouped = Person { groups: vec![8, 9], ..other };
        assert!(typed(&grouped, "/x", "/x", None).is_some_and(|line| line.contains("--regid 8 --groups 8,9 -- env -C '/srv/my app' /x")));
        if me == 0 {
            let confined = Person { permitted: 1, bounding: 1, ..own };
            assert_eq!(typed(&confined, "/x", "/x", None), None);
        }
    }
}
