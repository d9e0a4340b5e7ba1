//! The command line: the only room that knows clap. It checks raw arguments once and hands options
//! to the commands.

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ErrorKind},
};

use self::refusal::fail;
use crate::{event::Verdict, host::exec, screen, serve::ReloadSignals};

mod agent;
mod aliases;
mod broadcast;
mod colour;
mod completions;
mod descriptors;
mod diff;
mod exports;
mod fleet_file;
mod help;
mod history;
mod hosts;
mod interrupt;
mod kinds;
mod mistaken;
mod refusal;
mod resume;
mod run;
mod run_args;
mod schema;
mod serve;
mod show;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod values;
mod version;
mod watch;

/// Reload the configuration of a whole fleet by SIGHUP, and prove that it took effect.
#[derive(Debug, Parser)]
#[command(
    disable_help_subcommand = true,
    disable_version_flag = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print the version; with --verbose also what it was built from
    #[arg(short = 'V', long)]
    version: bool,
    #[arg(short, long, requires = "version", hide = true)]
    verbose: bool,
    #[command(flatten)]
    colour: colour::ColourArg,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the message of a config file over HTTP.
    ///
    /// SIGHUP swaps the config without dropping a request.
    Serve(serve::ServeArgs),
    /// Check a config file of `hello serve`.
    ///
    /// With --store, the file and the value of the key are checked as `hello serve` merges them.
    Check(serve::CheckArgs),
    /// Install a config, signal every instance, and prove it.
    ///
    /// On failure the run restores the old config, and proves that.
    #[command(visible_aliases = aliases::BROADCAST)]
    Broadcast(broadcast::BroadcastArgs),
    /// Start a run after each change of a config.
    ///
    /// It watches the targets of groups, or their sources. Each run has the guards of a broadcast.
    Watch(watch::WatchArgs),
    /// Finish an open run with the config of that run.
    ///
    /// Every instance is brought to it. A run is open if its coordinator died or if it ended mixed.
    /// The command first inspects the processes and files as they are now.
    Resume(resume::ResumeArgs),
    /// Restore the config that a run replaced, and prove it.
    ///
    /// Without RUN, it reverts the newest open run. If none is open, it shows the last run that
    /// changed a config, and asks.
    #[command(visible_aliases = aliases::REVERT)]
    Revert(resume::RevertArgs),
    /// Runs a command for another process of this program, and ends every process of the command.
    #[command(hide = true)]
    ExecSupervise,
    /// Becomes a command for another process of this program.
    #[command(hide = true)]
    ExecBecome,
    /// Gives the user namespace of another process of this program its users.
    #[command(hide = true)]
    ExecMapUsers,
    /// List the daemons that hello knows, or print one as a group.
    Kinds {
        /// Print this kind as a group that can be copied into fleet.toml and changed.
        name: Option<String>,
    },
    /// Show the instances that do not run the config on their disk.
    ///
    /// Instances that could not reload it are faults too. The command reads only.
    #[command(visible_aliases = aliases::STATUS)]
    Status(status::StatusArgs),
    /// Compare the disk with what runs, or with a candidate.
    ///
    /// The command reads only.
    Diff(diff::DiffArgs),
    /// Explain why a process can or cannot be reloaded.
    ///
    /// Each check is printed, with what to do if it fails. The command reads only.
    Doctor(status::DoctorArgs),
    /// Show whether each host can be reached, and its repair if not.
    ///
    /// The hosts are those of [hosts] in the fleet file. The command touches nothing.
    Hosts(hosts::HostsArgs),
    /// Answer the requests of a coordinator for this host.
    ///
    /// A coordinator starts it through ssh. The fleet file of this host says what may be reloaded.
    Agent(agent::AgentArgs),
    /// List the runs that are kept, or show the events of one.
    #[command(visible_aliases = aliases::HISTORY)]
    History(history::HistoryArgs),
    /// Show what one run changed, or print a stored content.
    ///
    /// A content is printed exactly, as long as stdout is no terminal.
    Show(show::ShowArgs),
    /// Remove a run, or a content from every run.
    ///
    /// Nothing that an open run needs is removed.
    Forget(history::ForgetArgs),
    /// Print the script that completes hello in a shell.
    ///
    /// `hello help install` says where each shell looks for it.
    Completions {
        /// Print the script of this shell.
        #[arg(value_name = "bash|zsh|fish", hide_possible_values = true)]
        shell: completions::Shell,
    },
    /// Writes the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// Write into this directory, which is made if it is missing.
        dir: PathBuf,
    },
    /// Prints the version, as --version does.
    #[command(hide = true)]
    Version,
    /// Print the JSON Schema of an output, or of fleet.toml.
    ///
    /// Editors complete and check a fleet.toml with it; programs learn what they may read.
    Schema {
        /// Print the schema of this.
        #[arg(
            value_enum,
            value_name = "result|events|status|hosts|fleet",
            hide_possible_values = true
        )]
        subject: schema::Subject,
    },
    /// Print this overview, the help of a command, or a topic.
    Help {
        /// Print the help of this command, or this page of the manual. [default: the overview]
        #[arg(value_name = "COMMAND|TOPIC")]
        subject: Option<String>,
    },
}

impl Command {
    /// Tells whether the command inspects processes.
    fn inspects_processes(&self) -> bool {
        match self {
            Self::Broadcast(_)
            | Self::Watch(_)
            | Self::Resume(_)
            | Self::Revert(_)
            | Self::Status(_)
            | Self::Diff(_)
            | Self::Doctor(_)
            | Self::Hosts(_)
            | Self::Agent(_) => true,
            Self::Serve(_)
            | Self::Check(_)
            | Self::ExecSupervise
            | Self::ExecBecome
            | Self::ExecMapUsers
            | Self::Kinds { .. }
            | Self::History(_)
            | Self::Show(_)
            | Self::Forget(_)
            | Self::Completions { .. }
            | Self::Man { .. }
            | Self::Version
            | Self::Schema { .. }
            | Self::Help { .. } => false,
        }
    }
}

/// Parses the arguments and runs the command; only the server uses `signals`. A command whose
/// output could not be written does not exit with 0.
#[must_use]
pub fn main(signals: io::Result<ReloadSignals>) -> ExitCode {
    let code = match signals {
        Ok(signals) => run_command(signals),
        Err(e) => fail(Verdict::Failed.exit(), &format!("cannot catch SIGHUP: {e}")),
    };
    let Some(why) = screen::unwritten() else {
        return code;
    };
    screen::tell(&screen::failure(&format!(
        "the output could not be written to {why}"
    )));
    if code == ExitCode::SUCCESS {
        ExitCode::FAILURE
    } else {
        code
    }
}

/// The command line as clap knows it, with all of its help.
fn command_line() -> clap::Command {
    help::complete(Cli::command())
}

fn run_command(signals: ReloadSignals) -> ExitCode {
    let colours = colour::Colours::of_command_line();
    colours.apply();
    let parsed = command_line()
        .color(colours.of_help())
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => return print_parse_result(&without_odd_advice(e)),
    };
    let Some(command) = cli.command else {
        version::print(cli.verbose);
        return ExitCode::SUCCESS;
    };
    // Before any file is opened: with too few descriptors, a good file would be reported as one
    // that cannot be read.
    if command.inspects_processes()
        && let Err(too_few) = descriptors::raise_nofile_limit()
    {
        return too_few.fail();
    }
    match command {
        Command::Serve(args) => serve::serve(args, signals),
        Command::Check(args) => serve::check(args),
        Command::Kinds { name } => kinds::kinds(name.as_deref()),
        Command::ExecSupervise => ExitCode::from(exec::supervise()),
        Command::ExecBecome => ExitCode::from(exec::become_command()),
        Command::ExecMapUsers => ExitCode::from(exec::map_users()),
        Command::Broadcast(args) => broadcast::broadcast(args),
        Command::Watch(args) => watch::watch(args, signals),
        Command::Resume(args) => resume::resume(args),
        Command::Revert(args) => resume::revert(args),
        Command::History(args) => history::history(args),
        Command::Show(args) => show::show(args),
        Command::Forget(args) => history::forget(args),
        Command::Status(args) => status::status(args),
        Command::Diff(args) => diff::diff(args),
        Command::Doctor(args) => status::doctor(args),
        Command::Hosts(args) => hosts::hosts(args),
        Command::Agent(args) => agent::agent(args),
        Command::Completions { shell } => completions::print(command_line(), shell),
        Command::Man { dir } => help::man(command_line(), &dir),
        Command::Version => {
            version::print(cli.verbose);
            ExitCode::SUCCESS
        }
        Command::Schema { subject } => schema::schema(subject),
        Command::Help { subject } => help::help(command_line(), subject.as_deref()),
    }
}

/// Removes the advice of clap to pass an unknown option as a value: no value of this command line
/// begins with a dash.
fn without_odd_advice(mut e: clap::Error) -> clap::Error {
    if e.kind() == ErrorKind::UnknownArgument
        && e.get(ContextKind::SuggestedArg).is_none()
        && e.get(ContextKind::SuggestedSubcommand).is_none()
    {
        e.remove(ContextKind::Suggested);
    }
    e
}

/// Prints the help, or the reason why the arguments cannot be parsed. Clap repeats arguments and
/// variables of the environment, which may hold what a terminal would obey.
fn print_parse_result(e: &clap::Error) -> ExitCode {
    let text = e.to_string();
    let is_plain = |word: OsString| screen::line(&word.to_string_lossy()) == word.to_string_lossy();
    let mut words = std::env::args_os().chain(
        std::env::vars_os()
            .filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HELLO_"))
            .map(|(_, value)| value),
    );
    if words.all(is_plain) {
        // Printed by clap, it may be coloured.
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
        refusal::print_object(Verdict::Usage.exit(), &text);
    }
    ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2))
}
