//! The last stage: drops privileges and becomes the command.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Seek, Write},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    unistd::{chdir, execveat},
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
    thread::set_no_new_privs,
};

use super::{
    assume::{assume_credentials, own},
    environ::{self, Variables},
    error::StageError,
    held::HeldProcess,
    limits,
    numbers::{Numbers, Users},
    program::{isolate, own_keyring},
    request::{Answer, Instance, Policy, Request, World, channel, send_store},
    trusted::{self, PATH},
    view,
};

/// Becomes the command of the request on stdin. Returns only on failure, after it has sent the
/// reason over the socket.
pub(crate) fn become_command() -> u8 {
    let parent = getppid();
    let Ok(channel) = channel() else { return 1 };
    let Err(why) = isolate().and_then(|()| attempt(&channel, parent));
    // For the stage above, a closed socket without an answer means success only while this process
    // lives.
    let _ = Answer::NotRun(why.to_string()).send(&channel);
    1
}

fn attempt(channel: &UnixStream, parent: Option<Pid>) -> Result<Infallible, StageError> {
    let request = Request::receive(channel).map_err(|e| StageError::Step("no request", e))?;
    match &request.policy {
        Policy::Judge(instance) => {
            let held = judge(instance, channel)?;
            end_with_parent(parent)?;
            // The limit comes last, because the steps before may open more files.
            restore_limits(&request)?;
            let environment = environment(&held);
            match &instance.own {
                Some(name) => Err(by_descriptor(&held.exe, name, &request.argv, environment)),
                None => Err(in_environment(&request.argv, environment)),
            }
        }
        Policy::Start(credentials, cwd) => {
            own()
                .and_then(|own| assume_credentials(&own, credentials))
                .map_err(|e| StageError::Credentials(credentials.uid(), e))?;
            // The directory is entered as its user. A program that may not enter it starts in `/`.
            let _ = chdir(cwd.as_os_str()).or_else(|_| chdir("/"));
            let _ = own_keyring();
            restore_limits(&request)?;
            Err(by_name(&request.argv))
        }
        Policy::Own(_) => {
            stdin(&request.input).map_err(|e| StageError::Step("its stdin", e))?;
            end_with_parent(parent)?;
            restore_limits(&request)?;
            Err(by_name(&request.argv))
        }
    }
}

/// Enters the namespaces, root and directory of the instance, and assumes its credentials.
fn judge(instance: &Instance, channel: &UnixStream) -> Result<HeldProcess, StageError> {
    let numbers = Numbers::open().map_err(|e| StageError::Step("`/proc/self/fd`", e))?;
    let own = own().map_err(|e| StageError::Step("this process cannot be inspected", e))?;
    let held = HeldProcess::open(instance)?;
    super::held::enter(&held)?;
    let users = if held.credentials.uids == own.uids {
        Users::Own
    } else {
        Users::Callers
    };
    let view = match instance.world {
        World::View => Some(view::build(
            &instance.binds,
            &held.logs,
            &numbers,
            users,
            held.spaces.has_own_files(),
        )?),
        World::Files | World::Environment => None,
    };
    if let Some(view) = &view {
        let step = "the filesystem for its writes cannot be sent to its supervisor";
        send_store(&view.store, channel).map_err(|e| StageError::Step(step, e))?;
    }
    assume_credentials(&own, &held.credentials)
        .map_err(|e| StageError::Credentials(held.credentials.uid(), e))?;
    // No program may give the command privileges that its instance cannot gain. A setuid root
    // command is an exception: with no_new_privs, the kernel would reset its effective user at
    // execve(2) (capabilities(7)).
    let keeps_root = held.credentials.has_root()
        && (held.credentials.is_setuid() || held.credentials.is_setgid());
    if !keeps_root && (instance.entered || held.spaces.differ() || own != held.credentials) {
        set_no_new_privs(true)
            .map_err(|e| StageError::Step("it cannot be kept from gaining privileges", e.into()))?;
    }
    view::enter_cwd(view.as_ref())?;
    // The user of the command must own its session keyring. That of the stage before, which is
    // empty too, belongs to the caller.
    let _ = own_keyring();
    Ok(held)
}

fn restore_limits(request: &Request) -> Result<(), StageError> {
    limits::restore(request.files)
        .map_err(|e| StageError::Step("its limit of open files cannot be restored", e))
}

/// Makes the kernel end this process, and the command that it becomes, with its supervisor.
fn end_with_parent(parent: Option<Pid>) -> Result<(), StageError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| StageError::Step("it cannot be ended with its supervisor", e.into()))?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(StageError::NoSupervisor)
    }
}

/// Makes `input` the stdin of the command.
fn stdin(input: &[u8]) -> io::Result<()> {
    if input.is_empty() {
        return Ok(());
    }
    let mut file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(rustix::stdio::dup2_stdin(&file)?)
}

/// Returns the environment of the command: that of its instance if it is held, else the clean one
/// of this process.
fn environment(held: &HeldProcess) -> Variables {
    let own = || std::env::vars_os().collect();
    let Some(mut variables) = held
        .environment
        .as_deref()
        .and_then(environ::parse)
        .map(|variables| environ::passed_on(variables, PATH))
    else {
        return own();
    };
    // The stages above set this variable for every command with a view.
    variables.extend(std::env::vars_os().filter(|(name, _)| name == "PYTHONDONTWRITEBYTECODE"));
    variables
}

/// Executes a program by its path, or the first of its name in the `PATH` of `environment` or in
/// [`PATH`]. Returns the error.
fn in_environment(argv: &[OsString], environment: Variables) -> StageError {
    let Some((program, args)) = argv.split_first() else {
        return StageError::Empty;
    };
    let path = environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value.clone())
        .unwrap_or_default();
    // A relative directory would be below the working directory of the command.
    let directories = std::env::split_paths(&path)
        .chain(std::env::split_paths(PATH))
        .filter(|dir| dir.is_absolute());
    let found = trusted::search(program, directories).unwrap_or_else(|| program.into());
    if let Err(why) = trusted::check(&found) {
        return why.into();
    }
    let mut command = Command::new(found);
    command.arg0(program).args(args).env_clear();
    StageError::Execute(command.envs(environment).exec())
}

/// Executes an open file as `name`. Returns the error.
fn by_descriptor(
    exe: &OwnedFd,
    name: &OsStr,
    argv: &[OsString],
    environment: Variables,
) -> StageError {
    let words = std::iter::once(name)
        .chain(argv.iter().skip(1).map(OsString::as_os_str))
        .map(|word| CString::new(word.as_bytes()));
    let env = environment
        .into_iter()
        .map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()));
    let (Ok(words), Ok(env)) = (
        words.collect::<Result<Vec<_>, _>>(),
        env.collect::<Result<Vec<_>, _>>(),
    ) else {
        return StageError::Execute(Errno::EINVAL.into());
    };
    // Rust ignores SIGPIPE. A signal with a handler is reset to its default by execve(2).
    if let Err(e) =
        signal_hook::flag::register(Signal::PIPE.as_raw(), Arc::new(AtomicBool::new(false)))
    {
        return StageError::Execute(e);
    }
    let Err(e) = execveat(exe, c"", &words, &env, AtFlags::AT_EMPTY_PATH);
    StageError::Execute(e.into())
}

/// Executes a program by its path, or the first of its name in `PATH`. Returns the error.
fn by_name(argv: &[OsString]) -> StageError {
    match argv.split_first() {
        Some((program, args)) => match trusted::find(program) {
            Ok(found) => StageError::Execute(Command::new(found).arg0(program).args(args).exec()),
            Err(why) => why.into(),
        },
        None => StageError::Empty,
    }
}
