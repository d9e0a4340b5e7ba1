//! The command that starts a program again. The program ended on a config that it could not load,
//! and the old config is installed again.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    event::{Failure, Outcome},
    host::{
        discover::{found::Found, renewal},
        exec::{
            placeholders::{NoValue, Values},
            quoted, start, typed,
        },
        probe::{answer::KernelError, limits::ProbeLimits},
        reload::{context::ProofContext, remains, successor},
    },
    identity::{Line, Sees},
    kernel,
    step::PlannedInstance,
};

/// The pause between two scans for the new process.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns the command by which an operator starts `member` again. It starts its unit, or runs the
/// command line that it had, as the user that it ran as and with the variables that say where its
/// config is. Returns `None` if that command would run with more rights than the instance had, or
/// is not known.
pub(crate) fn command(member: &PlannedInstance) -> Option<String> {
    let cwd = &member.cwd;
    if let Some(unit) = &member.group.matching.unit {
        return Some(quoted(&["systemctl".into(), "start".into(), unit.clone()]));
    }
    if member.identity.sees == Sees::Another {
        return None;
    }
    let user = member.identity.person.starter();
    if !member.group.revive.is_empty() {
        return typed(
            &filled(member).unwrap_or_else(|_| member.group.revive.clone()),
            &user,
            cwd,
        );
    }
    let exe = kernel::strip_deleted(&member.instance.exe);
    let argv = match member.identity.line {
        Line::Arguments => member.args.to_vec(),
        Line::Title => from_title(exe, &member.args)?,
        // With a blank in a word, the ends of the arguments are not known.
        Line::Told if member.args.iter().any(|word| word.contains(' ')) => return None,
        Line::Told => member.args.to_vec(),
    };
    // An executable that was removed starts nothing, and control characters cannot be typed.
    let is_text = |word: &String| {
        !word.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
    };
    let is_known = exe.is_absolute()
        && exe.is_file()
        && argv.iter().all(is_text)
        && !has_left_its_directory(member, &argv);
    if !is_known {
        return None;
    }
    let command: Vec<String> = environment(member)?
        .into_iter()
        .chain([exe.display().to_string()])
        .chain(argv)
        .collect();
    typed(&command, &user, cwd)
}

/// Returns the words that set the variables which say where the config of an instance is. Returns
/// `None` if one of them cannot be typed.
fn environment(member: &PlannedInstance) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for (name, value) in &member.variables {
        let value = value
            .to_str()
            .filter(|value| !value.contains(char::is_control))?;
        words.push(format!("{name}={value}"));
    }
    if !words.is_empty() {
        words.insert(0, "env".into());
    }
    Some(words)
}

/// Tells whether the process has left the directory that it was started in. An argument then names
/// a target by a relative path that does not exist in its working directory.
fn has_left_its_directory(member: &PlannedInstance, argv: &[String]) -> bool {
    let value = |word: &String| {
        PathBuf::from(
            word.split_once('=')
                .map_or(word.as_str(), |(_, value)| value),
        )
    };
    let names_target = |path: &PathBuf| {
        path.is_relative()
            && member
                .instance
                .targets
                .iter()
                .any(|target| target.ends_with(path))
    };
    argv.iter()
        .map(value)
        .filter(names_target)
        .any(|path| !member.cwd.join(path).exists())
}

/// Returns the arguments in a title that holds the whole command line, as sshd's does. Returns
/// `None` if the words are not that, or if blanks inside an argument may have been lost.
fn from_title(exe: &Path, words: &[String]) -> Option<Vec<String>> {
    let (index, _) = renewal::named_in_title(exe, words)?;
    let words: Vec<String> = words
        .iter()
        .skip(index + 1)
        .take_while(|word| !word.starts_with('['))
        .cloned()
        .collect();
    let is_option = |word: &String| word.starts_with('-');
    let first_is_option = words.first().is_none_or(is_option);
    let one_value_each = words.windows(2).all(|pair| pair.iter().any(is_option));
    (first_is_option && one_value_each).then_some(words)
}

/// Returns the group's `revive` with the values of this instance.
fn filled(member: &PlannedInstance) -> Result<Vec<String>, NoValue> {
    let instance = &member.instance;
    let config = instance.targets.first().map(PathBuf::as_path);
    Values {
        pid: instance.pid,
        process: instance.pid,
        exe: kernel::strip_deleted(&instance.exe),
        args: &member.args,
        endpoint: &instance.endpoint,
        config,
        candidate: config,
    }
    .fill(&member.group.revive)
}

/// Starts `member` again by its group's `revive`, as the user that it ran as and in a session of
/// its own. Waits until the new process proves the old config.
///
/// # Errors
/// Fails if the command cannot be run or starts no new process, or if that process proves nothing.
pub(crate) async fn restart_command(
    member: &PlannedInstance,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> Result<PlannedInstance, Failure> {
    let instance = &member.instance;
    let argv = filled(member).map_err(|e| failure(e.to_string()))?;
    let command = || quoted(&argv);
    remains::wait(member, limits).await;
    let mut child = spawn(member, &argv).await?;
    let began = Instant::now();
    let mut exit = None;
    loop {
        let late = began.elapsed() >= member.timeout;
        exit = exit.or(child.try_wait().ok().flatten());
        let found = match limits.newest(context.surveyed, PAUSE) {
            Ok(newest) => successor::unknown(member, &newest, limits).await,
            Err(e) if late => {
                let why = KernelError::Processes(e);
                return Err(failure(format!("{why}; {}", why.hint())));
            }
            Err(_) => Vec::new(),
        };
        let is_new = |found: &Found| context.surveyed.is_before(found.pid, found.started);
        if let Some(found) = found.into_iter().find(is_new) {
            limits.add_known([(found.pid, found.started)]);
            let mut new = successor::prove(&found, member, context, member.timeout, limits).await?;
            new.instance.successor_of = Some(instance.pid);
            new.instance.failure.clone_from(&instance.failure);
            return Ok(new);
        }
        match exit {
            Some(status) if !status.success() => {
                return Err(failure(format!(
                    "`{}` ended ({status}), and no new process is there; its output is not kept, \
                     so run it by hand",
                    command()
                )));
            }
            _ if late => {
                return Err(failure(format!(
                    "`{}` has started no process of group `{}` within {:?}",
                    command(),
                    instance.group,
                    member.timeout
                )));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Runs the command that starts `member` again.
async fn spawn(
    member: &PlannedInstance,
    argv: &[String],
) -> Result<tokio::process::Child, Failure> {
    let not_run =
        |why: &dyn Display| failure(format!("`{}` could not be run: {why}", quoted(argv)));
    if member.identity.sees != Sees::TheSame {
        return Err(not_run(
            &"it ran in namespaces or below a root directory of its own, in which nothing is \
              started",
        ));
    }
    start(argv, &member.identity.person.starter(), &member.cwd)
        .await
        .map_err(|e| not_run(&e))
}

fn failure(text: String) -> Failure {
    Failure {
        kind: Outcome::RevertFailed.into(),
        text,
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
        identity::{Credentials, Identity},
    };

    struct RestartCase {
        dir: tempfile::TempDir,
        person: Credentials,
    }

    impl RestartCase {
        /// Makes a directory with these programs in it.
        fn new(programs: &[&str]) -> Self {
            let me = nix::unistd::geteuid().as_raw();
            let person = Credentials {
                uids: [me; 3],
                permitted: u64::MAX,
                bounding: u64::MAX,
                ..Credentials::default()
            };
            let case = Self {
                dir: tempfile::tempdir().unwrap(),
                person,
            };
            programs
                .iter()
                .for_each(|name| std::fs::write(case.dir.path().join(name), "").unwrap());
            case
        }

        fn member(&self, exe: &str, line: Line, args: &str) -> PlannedInstance {
            let group = Fleet::of_kind("sshd").unwrap().groups.remove(0);
            let exe = format!("{}/{exe}", self.dir.path().display());
            let instance = Instance {
                exe: exe.into(),
                ..Instance::new("sshd", 7, 1)
            };
            let args = args.replace("DIR", &self.dir.path().display().to_string());
            let args = args.split('|').map(str::to_owned).collect();
            let identity = Identity {
                person: self.person.clone().into(),
                line,
                ..Identity::default()
            };
            PlannedInstance {
                cwd: "/srv/my app".into(),
                identity,
                ..PlannedInstance::new(instance, Arc::new(group), args)
            }
        }

        /// Returns the command without the change of directory.
        fn typed(&self, exe: &str, line: Line, args: &str) -> Option<String> {
            self.command(&self.member(exe, line, args))
        }

        fn command(&self, member: &PlannedInstance) -> Option<String> {
            let line =
                super::command(member)?.replace(&self.dir.path().display().to_string(), "DIR");
            Some(
                line.strip_prefix("cd '/srv/my app' && ")
                    .map_or(line.clone(), str::to_owned),
            )
        }
    }

    const LISTENER: &str = "DIR/sshd|-D|-f|/a|[listener]|0|of|10-100|startups";

    #[test]
    fn the_command_is_the_one_that_it_was_started_by() {
        let case = RestartCase::new(&["sshd", "python3.11"]);
        let text = |line: &str| Some(line.to_owned());
        assert_eq!(
            case.typed("sshd", Line::Title, LISTENER),
            text("DIR/sshd -D -f /a")
        );
        assert_eq!(
            case.typed("sshd (deleted)", Line::Title, LISTENER),
            text("DIR/sshd -D -f /a")
        );
        assert_eq!(
            case.typed("sshd", Line::Told, "-D|-f|/a"),
            text("DIR/sshd -D -f /a")
        );
        assert_eq!(case.typed("sshd", Line::Told, "-D|-f|/a b"), None);
        let own = "/usr/bin/gunicorn|-c|it's.py|DIR/python3.11|x";
        assert_eq!(
            case.typed("python3.11", Line::Arguments, own),
            text(r"DIR/python3.11 /usr/bin/gunicorn -c 'it'\''s.py' DIR/python3.11 x")
        );
        let mut unit = case.member("sshd", Line::Title, LISTENER);
        Arc::make_mut(&mut unit.group).matching.unit = Some("ssh.service".into());
        assert_eq!(case.command(&unit), text("systemctl start ssh.service"));
    }

    #[test]
    fn the_command_sets_the_variables_that_say_where_its_config_is() {
        let case = RestartCase::new(&["master"]);
        let mut member = case.member("master", Line::Arguments, "-w");
        member.variables = vec![("MAIL_CONFIG".into(), "/etc/my postfix".into())];
        assert_eq!(
            case.command(&member),
            Some("env 'MAIL_CONFIG=/etc/my postfix' DIR/master -w".into())
        );
        member.variables = vec![("MAIL_CONFIG".into(), "/etc/\n".into())];
        assert_eq!(case.command(&member), None);
    }

    #[test]
    fn there_is_no_command_if_the_command_line_is_not_known() {
        let case = RestartCase::new(&["sshd", "php-fpm8.2", "proftpd", "nginx"]);
        for (exe, line, args) in [
            ("gone", Line::Arguments, "-x"),
            ("gone (deleted)", Line::Title, "DIR/gone|-D"),
            (
                "php-fpm8.2",
                Line::Title,
                "master|process|(/etc/php/8.2/fpm/php-fpm.conf)",
            ),
            ("proftpd", Line::Title, "(accepting|connections)"),
            // Blanks that stood inside an argument.
            (
                "nginx",
                Line::Title,
                "master|process|DIR/nginx|-g|daemon|off;",
            ),
            ("sshd", Line::Arguments, "-f|/a\u{fffd}"),
        ] {
            assert_eq!(case.typed(exe, line, args), None, "{exe} {args}");
        }
        let mut elsewhere = case.member("sshd", Line::Title, LISTENER);
        elsewhere.identity.sees = Sees::Another;
        assert_eq!(case.command(&elsewhere), None);
    }

    #[test]
    fn the_command_runs_as_the_user_that_started_it() {
        let me = nix::unistd::geteuid().as_raw();
        let mut case = RestartCase::new(&["x"]);
        let own = case.person.clone();
        // The command of another user runs as that user, with no more rights than the instance had.
        case.person = Credentials {
            uids: [me + 7; 3],
            gids: [8; 3],
            ..Credentials::default()
        };
        let line = format!(
            "setpriv --reuid {} --regid 8 --clear-groups -- env -C '/srv/my app' DIR/x -y '$(id)'",
            me + 7
        );
        assert_eq!(case.typed("x", Line::Arguments, "-y|$(id)"), Some(line));
        case.person.groups = vec![8, 9];
        assert!(case.typed("x", Line::Arguments, "").is_some_and(|line| {
            line.contains("--regid 8 --groups 8,9 -- env -C '/srv/my app' DIR/x")
        }));
        if me == 0 {
            // A master process that changed its own user was started by root.
            for uids in [[13, 0, 0], [0, 65534, 0], [13, 13, 0]] {
                case.person = Credentials {
                    uids,
                    ..own.clone()
                };
                assert_eq!(
                    case.typed("x", Line::Arguments, "-y"),
                    Some("DIR/x -y".into()),
                    "{uids:?}"
                );
            }
            case.person = Credentials {
                permitted: 1,
                bounding: 1,
                ..own
            };
            assert_eq!(case.typed("x", Line::Arguments, ""), None);
        }
    }
}
