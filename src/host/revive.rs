//! A program that ended on a config that it could not load: how it was started, and how it is started again once the old config is back.

use std::{path::PathBuf, process::Stdio, time::Duration};

use crate::{
    event::{State, Trouble},
    host::{
        command::PATH,
        http::Lanes,
        placeholders::Known,
        successor::{self, Fresh},
    },
    step::Member,
};

/// Between two looks for the new process.
const PAUSE: Duration = Duration::from_millis(50);

/// What a person types to start `member` again: its unit, else the command line that it had.
pub(super) fn command(member: &Member) -> String {
    if let Some(unit) = &member.group.matching.unit {
        return format!("systemctl start {unit}");
    }
    if !member.group.revive.is_empty() {
        return spelled(&filled(member).unwrap_or_else(|_| member.group.revive.clone()));
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
    format!("cd {} && {}", spelled(&[member.cwd.display().to_string()]), spelled(&argv))
}

/// The group's `revive`, for this instance.
fn filled(member: &Member) -> Result<Vec<String>, String> {
    let i = &member.instance;
    let config = i.targets.first().map(PathBuf::as_path);
    Known { pid: i.pid, exe: &i.exe, args: &member.args, endpoint: &i.endpoint, config, candidate: config }.fill(&member.group.revive)
}

/// As a shell reads it.
fn spelled(argv: &[String]) -> String {
    let plain = |arg: &String| !arg.is_empty() && arg.chars().all(|c| c.is_alphanumeric() || "-_./=:,@%+".contains(c));
    argv.iter().map(|arg| if plain(arg) { arg.clone() } else { format!("'{}'", arg.replace('\'', "'\\''")) }).collect::<Vec<_>>().join(" ")
}

/// Starts `member` again by its group's `revive`, as this user and in a session of its own, and waits for the new process to prove the old config.
///
/// # Errors
/// The trouble: it could not be started, nothing new is there, or it proves nothing.
pub(super) async fn revive(member: &Member, fresh: Fresh<'_>, lanes: &Lanes) -> Result<Member, Trouble> {
    let trouble = |text: String| Trouble { kind: State::RevertFailed.into(), text };
    let i = &member.instance;
    let argv = filled(member).map_err(trouble)?;
    let said = || spelled(&argv);
    let mut child = tokio::process::Command::new("/proc/self/exe")
        .args(["run-detached", "--"])
        .args(&argv)
        .current_dir(if member.cwd.is_dir() { &*member.cwd } else { std::path::Path::new("/") })
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| trouble(format!("`{}` could not be run: {e}", said())))?;
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
    use crate::{event::Instance, fleet::Fleet};

    #[test]
    fn what_to_type_is_what_it_was_started_by() {
        let typed = |exe: &str, line: &str, unit: Option<&str>| {
            let mut group = Fleet::of_kind("sshd").unwrap().groups.remove(0);
            group.matching.unit = unit.map(str::to_owned);
            let instance = Instance { exe: exe.into(), ..Instance::new("sshd", 7, 1) };
            let args = line.split('|').map(str::to_owned).collect();
            command(&Member { cwd: "/srv/my app".into(), ..Member::new(instance, Arc::new(group), args) })
        };
        let title = "/usr/sbin/sshd|-D|-f|/a|[listener]|0|of|10-100|startups";
        assert_eq!(typed("/usr/sbin/sshd", title, None), "cd '/srv/my app' && /usr/sbin/sshd -D -f /a");
        assert_eq!(
            typed("/usr/bin/python3.11", "/usr/bin/gunicorn|-c|it's.py", None),
            r"cd '/srv/my app' && /usr/bin/python3.11 /usr/bin/gunicorn -c 'it'\''s.py'"
        );
        assert_eq!(typed("/usr/sbin/sshd", title, Some("ssh.service")), "systemctl start ssh.service");
    }
}
