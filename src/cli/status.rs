//! `hello status` and `hello doctor`: commands that read only.

use std::{process::ExitCode, time::Duration};

use super::{
    fleet_file::FleetArg,
    hosts::SelectArgs,
    refusal::{UsageError, fail},
    run::{run_readonly, run_until_interrupted},
    state::StateArg,
    values::OutputArg,
};
use crate::{
    doctor,
    event::Verdict,
    fleet::{self, Fleet, FleetError},
    inventory::{Expression, HostName, TermError},
    report::Output,
    status,
};

/// Why a selection of hosts cannot be used.
pub(super) const NO_HOSTS: &str =
    "--on and --except select hosts, and the fleet file has no [hosts]";

/// The shortest interval between two looks: each reads all processes of the machine.
const SHORTEST: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Show these groups, or all.
    ///
    /// Without a fleet file, name one kind: `hello kinds` lists them.
    groups: Vec<String>,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    fleet: FleetArg,
    #[command(flatten)]
    output: OutputArg,
    #[command(flatten)]
    state: StateArg,
    /// Print only what does not agree.
    #[arg(help_heading = "Output", short, long)]
    quiet: bool,
    /// Look again every SECONDS, until Ctrl-C.
    ///
    /// Without a value: every 2 seconds. On a terminal the answer is drawn in place. Elsewhere it
    /// is printed when it has changed, and with `-o jsonl` as one object. The exit code is that of
    /// the last look.
    #[arg(
        long,
        value_name = "SECONDS",
        default_missing_value = "2",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse_interval
    )]
    watch: Option<Duration>,
}

/// Returns an interval between looks: seconds, or a duration with its unit.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let with_unit = if text.ends_with(|c: char| c.is_ascii_digit()) {
        format!("{text}s")
    } else {
        text.to_owned()
    };
    fleet::parse_duration(&with_unit)
        .ok()
        .filter(|interval| *interval >= SHORTEST)
        .ok_or_else(|| format!("{text:?} is not between 0.1 and 3600 seconds"))
}

pub(super) fn status(args: StatusArgs) -> ExitCode {
    let (on, except) = args.select.expressions();
    let fleet = match args.fleet.load_of_any(&args.groups) {
        Ok(fleet) => fleet,
        Err(e) => return UsageError::from(e).fail(),
    };
    if fleet.hosts.is_none() && !(on.is_empty() && except.is_empty()) {
        return fail(Verdict::Usage.exit(), NO_HOSTS);
    }
    let state = args.state.resolve().ok();
    let (state, state_args) = state.map_or((None, String::new()), |state| {
        (Some(state.path), state.args)
    });
    let options = status::Options {
        fleet,
        hosts: status::HostOptions {
            on,
            except,
            groups: args.groups,
        },
        state,
        state_args,
        output: args.output.form(),
        quiet: args.quiet,
    };
    match args.watch {
        None => run_readonly(status::run(options)),
        Some(_) if options.output == Output::Json => {
            let why = "--watch has no one object at the end: use -o jsonl";
            fail(Verdict::Usage.exit(), why)
        }
        Some(interval) => run_until_interrupted(move |i| status::watch(options, interval, i)),
    }
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "hello doctor [OPTIONS] [PID] [GROUP]...")]
pub(super) struct DoctorArgs {
    /// Examine this process, or these groups, or all.
    ///
    /// A PID may be any process of this machine, in a group or not; groups after it limit the
    /// search. Without a fleet file the kinds are the groups: all of them for a PID, else name one.
    /// Over hosts, HOST:PID is a process of one host.
    #[arg(value_name = "PID|GROUP")]
    subjects: Vec<String>,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    fleet: FleetArg,
    #[command(flatten)]
    output: OutputArg,
    /// Print a group of fleet.toml for a process that no group and no kind knows.
    ///
    /// Each key has a comment: it was seen, or guessed. A line that begins with # is for you to
    /// decide. Append the output: `hello doctor PID --group >> fleet.toml`.
    #[arg(help_heading = "Output", long)]
    group: bool,
}

pub(super) fn doctor(args: DoctorArgs) -> ExitCode {
    match doctor_options(args) {
        Ok(options) => run_readonly(doctor::run(options)),
        Err(e) => e.fail(),
    }
}

fn doctor_options(args: DoctorArgs) -> Result<doctor::Options, UsageError> {
    let (mut on, except) = args.select.expressions();
    let first = args.subjects.first();
    let (host, pid) = first.map_or(Ok((None, None)), |word| process(word))?;
    let groups = &args.subjects[usize::from(pid.is_some())..];
    if args.group && pid.is_none() {
        let why = "--group prints the group of one process: name its PID";
        return Err(why.to_owned().into());
    }
    let is_new = args.group && groups.is_empty() && args.fleet.is_empty_file();
    let fleet = match args.fleet.load_of_any(groups) {
        // A shell that appends the group to a new file has created that already.
        _ if is_new => Fleet::default(),
        // Without a fleet file, the kinds are the groups of a named process.
        Err(FleetError::Nowhere) if pid.is_some() && groups.is_empty() => Fleet::default(),
        loaded => loaded?,
    };
    match (&fleet.hosts, host) {
        (None, Some(host)) => {
            let why = format!("`{host}` is a host, and the fleet file has no [hosts]");
            return Err(why.into());
        }
        (None, None) if !(on.is_empty() && except.is_empty()) => {
            return Err(NO_HOSTS.to_owned().into());
        }
        (Some(_), Some(host)) => {
            let term: Expression = host
                .as_str()
                .parse()
                .map_err(|e: TermError| e.to_string())?;
            on.extend(term);
        }
        (Some(_), None) if pid.is_some() => {
            return Err("name the host of the process: HOST:PID".to_owned().into());
        }
        _ => {}
    }
    Ok(doctor::Options {
        pid,
        on,
        except,
        groups: groups.to_vec(),
        fleet,
        shown: if args.group {
            doctor::Shown::Group
        } else {
            doctor::Shown::Checks
        },
        output: args.output.form(),
    })
}

/// Reads PID or HOST:PID; neither is the name of a group.
fn process(word: &str) -> Result<(Option<HostName>, Option<i32>), String> {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    match word.rsplit_once(':') {
        Some((host, pid)) if is_number(pid) => {
            let host = HostName::new(host).map_err(|e| e.to_string())?;
            Ok((Some(host), Some(parse_pid(pid)?)))
        }
        _ if is_number(word) => Ok((None, Some(parse_pid(word)?))),
        _ => Ok((None, None)),
    }
}

fn parse_pid(word: &str) -> Result<i32, String> {
    word.parse()
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| format!("{word} is not a pid"))
}
