//! The command line: the only place that knows clap. Raw arguments become checked options once.

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    broadcast,
    change::ChangeRequest,
    check::{self, CheckError},
    config::Listen,
    diagnostic, doctor,
    event::Verdict,
    fleet::{self, Count, Fleet, FleetError, KINDS, OnBadConfig, Share, Validation},
    host::exec,
    report::Output,
    runs::{Retention, Verb},
    screen,
    serve::{self, Hangups},
    status,
};

mod descriptors;
mod history;
mod interrupt;
mod refusal;
mod resume;
mod run;
mod state;
#[cfg(test)]
mod tests;
mod validate;

use self::{
    refusal::fail,
    run::{block_on, run_mutating},
    validate::Validate,
};

/// Reloads the configuration of a whole fleet by SIGHUP, and proves that it took effect.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer HTTP with the message of a config file; SIGHUP swaps it without dropping a request.
    Serve(ServeArgs),
    /// Judge a config file of `hello serve`: exit 0 valid, 4 invalid, 1 unreadable.
    Check {
        /// The config file.
        file: PathBuf,
    },
    /// Find every instance, validate, install, SIGHUP, and prove; otherwise put everything back and
    /// prove that.
    Broadcast(BroadcastArgs),
    /// Go on with a run whose owner died or that ended mixed: look at what is there now, and bring
    /// everybody to what that run was bringing.
    Resume(resume::ResumeArgs),
    /// Bring the config back that a run replaced, and prove that: of an open run, or (the undo
    /// button) of a named one that had ended well.
    Revert(resume::ResumeArgs),
    /// Runs a command for another process of this program, and ends with it whatever it started.
    #[command(hide = true)]
    ExecSupervise,
    /// Becomes a command for another process of this program.
    #[command(hide = true)]
    ExecBecome,
    /// Gives the user namespace of another process of this program its users.
    #[command(hide = true)]
    ExecMapUsers,
    /// The daemons that hello knows; with a name, what it knows as a group to be copied into
    /// fleet.toml and changed.
    Kinds {
        /// One of them.
        name: Option<String>,
    },
    /// Which processes do not run the config on their disk or would not survive a reload: exit 0
    /// when all agree, 7 when not. Reads only.
    Status(StatusArgs),
    /// Why a process can or cannot be reloaded, check by check, and what to do about it: exit 0 it
    /// can, 5 it cannot, 3 there is none. Reads only.
    Doctor(DoctorArgs),
    /// The runs that were, newest first; of one, everything that happened. Reads only.
    History(history::HistoryArgs),
    /// Take away one run now, or the bytes of one config from every run; what an open run needs is
    /// refused: exit 5.
    Forget(history::ForgetArgs),
}

impl Command {
    /// None where it looks at no processes; else what stdout carries of its end, where it is a run.
    fn looks_at_processes(&self) -> bool {
        match self {
            Self::Broadcast(_)
            | Self::Resume(_)
            | Self::Revert(_)
            | Self::Status(_)
            | Self::Doctor(_) => true,
            Self::Serve(_)
            | Self::Check { .. }
            | Self::ExecSupervise
            | Self::ExecBecome
            | Self::ExecMapUsers => false,
            Self::Kinds { .. } | Self::History(_) | Self::Forget(_) => false,
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "hello doctor [OPTIONS] [PID] [GROUP]...")]
struct DoctorArgs {
    /// Any process of this machine, in a group or not; without one, all that the groups match. Then
    /// groups of the fleet, else all of them. Without a fleet.toml the kinds are the groups: all
    /// for a PID, else name one.
    #[arg(value_name = "PID|GROUP")]
    what: Vec<String>,
    /// The fleet; else ./fleet.toml, else /etc/hello/fleet.toml.
    #[arg(long, value_name = "FILE", env = "HELLO_FLEET")]
    fleet: Option<PathBuf>,
    /// What stdout carries.
    #[arg(short, long, value_enum, default_value_t = Output::Screen)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// Groups of the fleet, else all of them. Without a fleet.toml: a kind (hello).
    groups: Vec<String>,
    /// The fleet; else ./fleet.toml, else /etc/hello/fleet.toml.
    #[arg(long, value_name = "FILE", env = "HELLO_FLEET")]
    fleet: Option<PathBuf>,
    /// What stdout carries.
    #[arg(short, long, value_enum, default_value_t = Output::Screen)]
    output: Output,
    /// Where runs are kept, and with them what was proven of those who cannot tell what they run.
    #[arg(long, value_name = "DIR", env = "HELLO_STATE")]
    state: Option<PathBuf>,
    /// Only what does not agree.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// The config file (TOML: message, listen, log).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// HOST:PORT or unix:PATH; wins over `listen` in the file. Port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// How long SIGTERM lets open requests finish.
    #[arg(long, default_value = "10s", value_parser = fleet::parse_duration)]
    drain: Duration,
    /// Who sees the proof headers and /-/*.
    #[arg(long, value_enum, default_value_t = Proof::Loopback)]
    proof: Proof,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    Revert,
    Stop,
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Proof {
    Loopback,
    Any,
}

#[derive(Debug, clap::Args)]
struct BroadcastArgs {
    /// Groups of the fleet; the only one needs no name. Without a fleet.toml: a kind (hello).
    groups: Vec<String>,
    /// Every group.
    #[arg(long, conflicts_with = "groups")]
    all: bool,
    /// The fleet; else ./fleet.toml, else /etc/hello/fleet.toml.
    #[arg(long, value_name = "FILE", env = "HELLO_FLEET")]
    fleet: Option<PathBuf>,
    /// This file or directory becomes the config of the one group, or of GROUP; then it may be
    /// repeated. For a group with several targets, a directory with an entry for each. Without this
    /// and --set, the group's `source`, else what is on disk already.
    #[arg(long, value_name = "[GROUP=]PATH", conflicts_with = "set")]
    config: Vec<String>,
    /// One --config becomes the config of several files, though they differ now.
    #[arg(long, requires = "config")]
    overwrite: bool,
    /// What only a live directory has goes; without it, that stays. Needs --config or a `source`.
    #[arg(long, conflicts_with = "set")]
    prune: bool,
    /// Edit a key of each target's own bytes; comments stay. KEY=@FILE keeps a value out of `ps`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// strict: every instance must have a validator and pass it; auto: where one is known; off:
    /// none is run. Alone it means strict.
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        default_missing_value = "strict",
        num_args = 0..=1,
        require_equals = true
    )]
    validate: Validate,
    /// Prepare, show, and touch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Expected number of instances: 3, 3.., ..5 or 3..5.
    #[arg(long, value_parser = fleet::parse_count)]
    count: Option<Count>,
    /// So many of each group are signalled by the end of each wave: numbers and percentages, a last
    /// 100% is implied. For all groups, instead of what fleet.toml says. Of a group without a kind,
    /// or of one that dies of a bad config, one instance goes alone first all the same.
    #[arg(long, value_name = "1,25%,..", value_delimiter = ',')]
    waves: Vec<Share>,
    /// So many of the whole run may fail: they are put back alone, and the run goes on. For all
    /// groups, instead of what fleet.toml says.
    #[arg(long, value_name = "N|P%")]
    max_failures: Option<Share>,
    /// When more fail. revert: everything goes back; stop: who failed goes back, nobody else is
    /// signalled, and the rest stays; continue: the same, and the run goes on. For all groups,
    /// instead of what fleet.toml says.
    #[arg(long, value_enum, value_name = "WHAT")]
    on_failure: Option<OnFailure>,
    /// Per instance, from its signal to its proof.
    #[arg(long, value_parser = fleet::parse_duration)]
    timeout: Option<Duration>,
    /// Whose endpoint is silent before the run goes along, after the others, and is proven by the
    /// new config alone. Without this it is left out while so many of its group fit `max_unresponsive`, and
    /// else refused.
    #[arg(long)]
    include_unresponsive: bool,
    /// For an incident; needs --reason. No bake and no gate, --include-sick, and after a failure
    /// nobody else is signalled and nothing is put back by itself. Validation, guards, lock and
    /// journal stay.
    #[arg(long, conflicts_with = "on_failure")]
    now: bool,
    /// Why; kept in the journal.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long another run's lock is waited for.
    #[arg(long, default_value = "0s", value_parser = fleet::parse_duration)]
    lock_timeout: Duration,
    /// Where runs are kept.
    #[arg(long, value_name = "DIR", env = "HELLO_STATE")]
    state: Option<PathBuf>,
    /// Which runs are kept when this one has ended: the last N, those up to that AGE, or both
    /// limits. Open ones always are.
    #[arg(long, value_name = "N|AGE|N,AGE", default_value = "50,30d")]
    keep: Retention,
    /// What stdout carries.
    #[arg(short, long, value_enum, default_value_t = Output::Screen)]
    output: Output,
    /// No progress lines.
    #[arg(short, long)]
    quiet: bool,
    /// A line for every instance that is signalled, also where there are many.
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
}

/// Parses the arguments and runs the command; none but the server looks at `hangups`. An answer
/// that stdout did not take is no success.
#[must_use]
pub fn main(hangups: io::Result<Hangups>) -> ExitCode {
    let code = match hangups {
        Ok(hangups) => command(hangups),
        Err(e) => fail(Verdict::Failed.exit(), &format!("cannot catch SIGHUP: {e}")),
    };
    let Some(why) = screen::unwritten() else {
        return code;
    };
    screen::tell(&screen::failure(&format!(
        "the answer could not be written to stdout: {why}"
    )));
    if code == ExitCode::SUCCESS {
        ExitCode::FAILURE
    } else {
        code
    }
}

fn command(hangups: Hangups) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return not_parsed(&e),
    };
    // Before any file is opened: with too few descriptors, a good file would be told as one that
    // cannot be read.
    if cli.command.looks_at_processes()
        && let Err(few) = descriptors::raise_nofile_limit()
    {
        return few.tell();
    }
    match cli.command {
        Command::Serve(args) => serve(args, hangups),
        Command::Check { file } => check(&file),
        Command::Kinds { name } => kinds(name.as_deref()),
        Command::ExecSupervise => ExitCode::from(exec::supervise()),
        Command::ExecBecome => ExitCode::from(exec::become_it()),
        Command::ExecMapUsers => ExitCode::from(exec::map_users()),
        Command::Broadcast(args) => match options(args) {
            Ok(options) => run_mutating(|halts| broadcast::run(options, halts)),
            Err(why) => {
                let code = fail(Verdict::Usage.exit(), &why);
                if why == NO_REASON {
                    screen::tell(&format!(
                        "\n{}",
                        screen::hint(
                            "say why it cannot wait, which is kept in the journal:",
                            &["--now --reason TEXT"]
                        )
                    ));
                }
                code
            }
        },
        Command::Resume(args) => resume::run(Verb::Resume, args),
        Command::Revert(args) => resume::run(Verb::Revert, args),
        Command::History(args) => history::history(args),
        Command::Forget(args) => history::forget(args),
        Command::Status(args) => match find_fleet(args.fleet, &args.groups, args.groups.is_empty())
        {
            Ok(fleet) => {
                let (state, flag) = history::state_dir(args.state)
                    .map_or((None, String::new()), |(state, flag)| (Some(state), flag));
                run_readonly(status::run(status::Options {
                    fleet,
                    state,
                    flag,
                    output: args.output,
                    quiet: args.quiet,
                }))
            }
            Err(why) => fail(Verdict::Usage.exit(), &why.to_string()),
        },
        Command::Doctor(args) => match doctor(args) {
            Ok(options) => run_readonly(doctor::run(options)),
            Err(why) => fail(Verdict::Usage.exit(), &why),
        },
    }
}

/// Why `--now` alone is refused.
const NO_REASON: &str = "--now needs a reason";

fn find_fleet(named: Option<PathBuf>, groups: &[String], all: bool) -> Result<Fleet, FleetError> {
    let path = named.or_else(|| {
        ["fleet.toml", "/etc/hello/fleet.toml"]
            .into_iter()
            .map(PathBuf::from)
            .find(|p| p.symlink_metadata().is_ok())
    });
    match (path, groups) {
        (Some(path), _) => Fleet::load(&path)?.select(groups, all),
        (None, [kind]) => Fleet::of_kind(kind),
        (None, _) => Err(FleetError::Nowhere),
    }
}

fn doctor(args: DoctorArgs) -> Result<doctor::Options, String> {
    let is_number = |word: &&String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let pid = args
        .what
        .first()
        .filter(is_number)
        .map(|word| {
            word.parse()
                .ok()
                .filter(|pid| *pid > 0)
                .ok_or_else(|| format!("{word} is no pid"))
        })
        .transpose()?;
    let groups = &args.what[usize::from(pid.is_some())..];
    let fleet = match find_fleet(args.fleet, groups, groups.is_empty()) {
        // The kinds speak for a process that is named.
        Err(FleetError::Nowhere) if pid.is_some() && groups.is_empty() => Fleet::default(),
        said => said.map_err(|e| e.to_string())?,
    };
    Ok(doctor::Options {
        pid,
        fleet,
        output: args.output,
    })
}

/// Runs a command that touches nothing to its exit code.
fn run_readonly(command: impl Future<Output = u8> + 'static) -> ExitCode {
    block_on(|| async { ExitCode::from(command.await) })
}

/// Help, or why the arguments are none. Clap repeats arguments and variables of the environment.
fn not_parsed(e: &clap::Error) -> ExitCode {
    let text = e.to_string();
    let is_plain = |word: OsString| screen::line(&word.to_string_lossy()) == word.to_string_lossy();
    let mut words = std::env::args_os().chain(
        std::env::vars_os()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HELLO_"))
            .map(|(_, value)| value),
    );
    if words.all(is_plain) {
        // As it is, it may be coloured.
        if let (Err(e), false) = (e.print(), e.use_stderr()) {
            screen::note_unwritten(&e);
        }
    } else if e.use_stderr() {
        screen::tell(&screen::failure(
            text.strip_prefix("error: ").unwrap_or(&text),
        ));
    } else {
        screen::answer([screen::row(&text)]);
    }
    if e.use_stderr() {
        refusal::answer(Verdict::Usage.exit(), &text);
    }
    ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2))
}

fn serve(args: ServeArgs, hangups: Hangups) -> ExitCode {
    let listen: Option<Listen> = match args.listen.map(|l| l.parse()).transpose() {
        Ok(listen) => listen,
        Err(e) => return fail(2, &format!("--listen: {e}")),
    };
    let proof = match args.proof {
        Proof::Loopback => serve::Proof::Loopback,
        Proof::Any => serve::Proof::Any,
    };
    match serve::main(
        serve::Options {
            config: args.config,
            listen,
            drain: args.drain,
            proof,
            log_json: args.log_json,
        },
        hangups,
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(1, &e.to_string()),
    }
}

fn kinds(name: Option<&str>) -> ExitCode {
    let text = match name {
        None => KINDS
            .iter()
            .map(|kind| format!("{}\n", kind.about()))
            .collect(),
        Some(name) => match KINDS.iter().find(|kind| kind.name == name) {
            Some(kind) => kind.as_group(),
            None => {
                let hint = diagnostic::suggest(name, KINDS.iter().map(|kind| kind.name))
                    .unwrap_or_default();
                return fail(Verdict::Usage.exit(), &format!("no kind `{name}`; {hint}"));
            }
        },
    };
    screen::answer([text.trim_end_matches('\n')]);
    ExitCode::SUCCESS
}

fn check(file: &std::path::Path) -> ExitCode {
    match check::check(file) {
        Ok(sha256) => {
            screen::answer([screen::row(&format!(
                "{}: valid sha256:{sha256}",
                file.display()
            ))]);
            ExitCode::SUCCESS
        }
        Err(CheckError::Unreadable(why)) => fail(1, &why),
        Err(CheckError::Invalid { rendered, .. }) => fail(4, &rendered),
    }
}

fn options(args: BroadcastArgs) -> Result<broadcast::Options, String> {
    if args.now && args.reason.as_ref().is_none_or(|why| why.trim().is_empty()) {
        return Err(NO_REASON.into());
    }
    let mut fleet = find_fleet(
        args.fleet.clone(),
        &args.groups,
        args.all || args.config.iter().any(|c| c.contains('=')),
    )
    .map_err(|e| e.to_string())?;
    let change = changes(&args, &mut fleet)?;
    may_change(&change, &args, &fleet)?;
    let dies = |g: &&fleet::Group| {
        (g.on_bad_config, g.validation) == (OnBadConfig::Dies, Validation::Wanted)
    };
    if let (Validate::Off, Some(group)) = (args.validate, fleet.groups.iter().find(dies)) {
        let why = "a config that it cannot load ends its process, so it is signalled only with a \
                   config that its validator passes";
        return Err(format!(
            "--validate=off is not for group `{}`: {why}",
            group.name
        ));
    }
    apply_overrides(&mut fleet, &args.waves, args.max_failures, args.on_failure)?;
    let (state, flag) = history::state_dir(args.state)?;
    Ok(broadcast::Options {
        fleet,
        change,
        overwrite: args.overwrite,
        validate: args.validate.into(),
        dry_run: args.dry_run,
        include_unresponsive: args.include_unresponsive || args.now,
        now: args.now,
        count: args.count,
        timeout: args.timeout,
        lock_timeout: args.lock_timeout,
        reason: args.reason,
        keep: args.keep,
        state,
        state_args: flag,
        output: args.output,
        quiet: args.quiet,
        verbose: args.verbose,
    })
}

/// Returns the change that is asked for. Where groups are named by it, all others leave `fleet`.
fn changes(args: &BroadcastArgs, fleet: &mut Fleet) -> Result<ChangeRequest, String> {
    let mut change = ChangeRequest {
        prune: args.prune,
        ..ChangeRequest::default()
    };
    for arg in &args.config {
        // A path may have a `=` in it, so only the name of a group counts as one.
        match arg
            .split_once('=')
            .filter(|(name, _)| fleet.groups.iter().any(|g| g.name == *name))
        {
            Some((name, path)) if change.configs.insert(name.into(), path.into()).is_some() => {
                return Err(format!("--config {name}= is given twice"));
            }
            Some(_) => {}
            None if change.config.replace(arg.into()).is_some() => {
                return Err("several --config: say which is whose, --config GROUP=PATH".into());
            }
            None => {}
        }
    }
    match (&change.config, change.configs.is_empty()) {
        (Some(_), false) => {
            return Err("--config PATH and --config GROUP=PATH do not go together".into());
        }
        (Some(_), true) if fleet.groups.len() > 1 => {
            return Err(
                "--config PATH is for one group: name it, or say --config GROUP=PATH".into(),
            );
        }
        // Groups without a change are not in the run.
        (None, false) => fleet
            .groups
            .retain(|g| change.configs.contains_key(&g.name)),
        _ => {}
    }
    let pair = |s: &String| {
        s.split_once('=')
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .ok_or_else(|| format!("--set {s:?} is not KEY=VALUE"))
    };
    change.set = args.set.iter().map(pair).collect::<Result<_, _>>()?;
    Ok(change)
}

/// Refuses a change that a group of `fleet` cannot take.
fn may_change(change: &ChangeRequest, args: &BroadcastArgs, fleet: &Fleet) -> Result<(), String> {
    if args.prune && args.config.is_empty() && !fleet.groups.iter().any(|g| g.source.is_some()) {
        return Err(
            "--prune says what goes when a directory becomes another: it needs --config, \
                    or a group with a `source`"
                .into(),
        );
    }
    let changed = change.config.is_some() || !change.configs.is_empty() || !change.set.is_empty();
    if let Some(group) = fleet.groups.iter().find(|g| changed && g.config.is_empty()) {
        return Err(format!(
            "group `{}` has no `config` that could be changed",
            group.name
        ));
    }
    Ok(())
}

/// What the command line says of waves and failures counts for every group of the run.
fn apply_overrides(
    fleet: &mut Fleet,
    waves: &[Share],
    max_failures: Option<Share>,
    on_failure: Option<OnFailure>,
) -> Result<(), String> {
    fleet::check_waves(waves).map_err(|why| format!("--waves: {why}"))?;
    let on_failure = on_failure.map(|on_failure| match on_failure {
        OnFailure::Revert => fleet::OnFailure::Revert,
        OnFailure::Stop => fleet::OnFailure::Stop,
        OnFailure::Continue => fleet::OnFailure::Continue,
    });
    for rollout in fleet.groups.iter_mut().map(|g| &mut g.rollout) {
        if !waves.is_empty() {
            rollout.waves = waves.to_vec();
        }
        if let Some(max) = max_failures {
            (rollout.max_failures, rollout.alone) = (max, false);
        }
        rollout.on_failure = on_failure.unwrap_or(rollout.on_failure);
    }
    Ok(())
}
