//! The last stage: gives up what it must, and becomes the command.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Seek, Write},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    unistd::{chdir, execveat},
};
use rustix::{
    fs::{Access, MemfdFlags, access, memfd_create},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
    thread::set_no_new_privs,
};

use super::{
    drop::{become_person, own},
    environ::{self, Variables},
    held::OpenedLogs,
    limits,
    numbers::{Numbers, Users},
    program::{own_keyring, part},
    request::{Answer, Instance, Policy, Request, World, channel, hand_on},
    run::PATH,
    view,
};
use crate::identity::Credentials;

/// Becomes the command of the request on stdin; comes back only when that failed, which is told
/// over the same socket.
pub(crate) fn become_it() -> u8 {
    let parent = getppid();
    let Ok(channel) = channel() else { return 1 };
    let Err(why) = part().and_then(|()| attempt(&channel, parent));
    // The stage above takes silence for success only while this process lives on.
    let _ = Answer::NotRun(why).send(&channel);
    1
}

fn attempt(channel: &UnixStream, parent: Option<Pid>) -> Result<Infallible, String> {
    let request = Request::receive(channel).map_err(|e| format!("no request: {e}"))?;
    match &request.policy {
        Policy::Judge(instance) => {
            let held = judge(instance, channel)?;
            end_with_parent(parent)?;
            // The last of all: whatever was opened before may need more.
            restored(&request)?;
            let environment = environment(&held);
            match &instance.own {
                Some(name) => Err(by_descriptor(&held.exe, name, &request.argv, environment)),
                None => Err(in_environment(&request.argv, environment)),
            }
        }
        Policy::Start(person, cwd) => {
            own()
                .and_then(|own| become_person(&own, person))
                .map_err(|e| cannot_become(person, &e))?;
            // As the user whose directory it is; a program that needs none finds the root.
            let _ = chdir(cwd.as_os_str()).or_else(|_| chdir("/"));
            let _ = own_keyring();
            restored(&request)?;
            Err(by_name(&request.argv))
        }
        Policy::Own(_) => {
            stdin(&request.input).map_err(|e| format!("its stdin: {e}"))?;
            end_with_parent(parent)?;
            restored(&request)?;
            Err(by_name(&request.argv))
        }
    }
}

/// Enters all that the instance has of its own, and becomes its user.
fn judge(instance: &Instance, channel: &UnixStream) -> Result<OpenedLogs, String> {
    let numbers = Numbers::open()?;
    let own = own().map_err(|e| format!("this process cannot be looked at: {e}"))?;
    let held = OpenedLogs::open(instance).map_err(|e| e.to_string())?;
    super::held::enter(&held)?;
    let users = if held.person.uids == own.uids {
        Users::Own
    } else {
        Users::Callers
    };
    let view = match instance.world {
        World::View => Some(view::build(
            &instance.binds,
            &held.written,
            &numbers,
            users,
            held.spaces.has_own_files(),
        )?),
        World::Files | World::Environment => None,
    };
    if let Some(view) = &view {
        hand_on(&view.store, channel)
            .map_err(|e| format!("its supervisor cannot be told what it writes to: {e}"))?;
    }
    become_person(&own, &held.person).map_err(|e| cannot_become(&held.person, &e))?;
    // It must not gain by a program what its instance could not.
    // With that, the kernel would take a differing effective user from it (capabilities(7)).
    let keeps_root = held.person.has_root() && (held.person.is_setuid() || held.person.is_setgid());
    if !keeps_root && (instance.entered || held.spaces.differ() || own != held.person) {
        set_no_new_privs(true)
            .map_err(|e| format!("it cannot be kept from gaining privileges: {e}"))?;
    }
    view::enter_again(view.as_ref())?;
    // Of the keyring of the stage before, which is as empty, it would not be the owner.
    let _ = own_keyring();
    Ok(held)
}

fn restored(request: &Request) -> Result<(), String> {
    limits::restore(request.files)
        .map_err(|e| format!("its limit of open files cannot be restored: {e}"))
}

fn cannot_become(person: &Credentials, e: &io::Error) -> String {
    format!("cannot become uid {}: {e}", person.uid())
}

/// Ends this process, and the command that it becomes, with its supervisor.
fn end_with_parent(parent: Option<Pid>) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| format!("it cannot be ended with its supervisor: {e}"))?;
    if getppid() == parent {
        Ok(())
    } else {
        Err("its supervisor ended".into())
    }
}

/// Lets the command read `input`.
fn stdin(input: &[u8]) -> io::Result<()> {
    if input.is_empty() {
        return Ok(());
    }
    let mut file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(rustix::stdio::dup2_stdin(&file)?)
}

/// The environment of the command: that of its instance where that is wanted and known, else the
/// clean one of this process.
fn environment(held: &OpenedLogs) -> Variables {
    let own = || std::env::vars_os().collect();
    let Some(mut all) = held
        .environment
        .as_deref()
        .and_then(environ::parse)
        .map(|all| environ::passed_on(all, PATH))
    else {
        return own();
    };
    // What the stages above set for every such command.
    all.extend(std::env::vars_os().filter(|(name, _)| name == "PYTHONDONTWRITEBYTECODE"));
    all
}

/// Executes a program by its path, or the first of its name in the `PATH` of `environment`, else in
/// that of this program.
fn in_environment(argv: &[OsString], environment: Variables) -> String {
    let Some((program, args)) = argv.split_first() else {
        return "the command is empty".into();
    };
    let path = environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value.clone())
        .unwrap_or_default();
    // A relative place would be one of the directory that the command works in.
    let places = std::env::split_paths(&path)
        .chain(std::env::split_paths(PATH))
        .filter(|dir| dir.is_absolute());
    let is_program = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let named = program.as_bytes().contains(&b'/');
    let found = if named {
        None
    } else {
        places.map(|dir| dir.join(program)).find(is_program)
    };
    let mut command = Command::new(
        found
            .as_ref()
            .map_or(program.as_os_str(), |path| path.as_os_str()),
    );
    command
        .arg0(program)
        .args(args)
        .env_clear()
        .envs(environment)
        .exec()
        .to_string()
}

/// Executes a program that is held open.
fn by_descriptor(exe: &OwnedFd, name: &OsStr, argv: &[OsString], environment: Variables) -> String {
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
        return io::Error::from(Errno::EINVAL).to_string();
    };
    // Rust ignores SIGPIPE. A signal with a handler has its default again in the program that is
    // executed.
    if let Err(e) =
        signal_hook::flag::register(Signal::PIPE.as_raw(), Arc::new(AtomicBool::new(false)))
    {
        return e.to_string();
    }
    let Err(e) = execveat(exe, c"", &words, &env, AtFlags::AT_EMPTY_PATH);
    io::Error::from(e).to_string()
}

/// Executes a program by its path, or the first of its name in `PATH`.
fn by_name(argv: &[OsString]) -> String {
    match argv.split_first() {
        Some((program, args)) => Command::new(program).args(args).exec().to_string(),
        None => "the command is empty".into(),
    }
}
