//! The signal or the command that reloads the program. A handler is no proof that it reloads: only
//! what starts the program declares that.

use super::{
    fact::{About, Fact, Source},
    help::Help,
    service::{Service, Services, signal_of},
    signals::Signals,
    sources::Sources,
    text::{GroupText, list, quoted},
    validator,
};
use crate::fleet::Signal;

/// A signal that a service sends for a reload.
struct Declared {
    signal: Signal,
    why: String,
}

/// Writes how the program is reloaded.
pub(super) fn write(
    Sources {
        program,
        services,
        help,
    }: Sources<'_>,
    signals: &Signals,
    text: &mut GroupText,
    facts: &mut Vec<Fact>,
) {
    facts.extend(services.facts());
    facts.extend(signals.facts());
    let declared = services.all.iter().find_map(declared);
    let command = services.all.iter().find_map(|service| {
        let others = service.reloads.iter();
        let mut others =
            others.filter(|argv| signal_of(argv).is_none() && !validator::is_test(program, argv));
        Some((service, others.next()?))
    });
    if let Some(Declared { signal, why }) = &declared {
        facts.push(Fact::guessed(About::Reload, why.clone()));
        quote(*signal, help, text, facts);
        write_declared(*signal, why, signals, text);
    }
    let mut is_by_command = false;
    if let Some((service, argv)) = command {
        let why = format!("ExecReload of {}", service.name);
        let detail = format!("`{}` ({why})", argv.join(" "));
        facts.push(Fact::guessed(About::Reload, detail));
        let argv = by_pid(argv);
        is_by_command = declared.is_none() && reloads_this(service, &argv);
        if is_by_command {
            text.key("reload_by", &list(&argv), Source::Seen, &why);
        } else {
            text.candidate("reload_by", &list(&argv), Source::Seen, &why);
        }
    }
    if declared.is_none() && !is_by_command {
        write_undeclared(services, signals, help, text, facts);
    }
    let why = "this line, if a config that it cannot load ends it";
    text.typed("on_bad_config", "\"dies\"", why);
}

/// Returns a command of a unit with the placeholder of the pid.
fn by_pid(argv: &[String]) -> Vec<String> {
    let filled = |word: &String| {
        word.replace("${MAINPID}", "{pid}")
            .replace("$MAINPID", "{pid}")
    };
    argv.iter().map(filled).collect()
}

/// Tells whether a command of a service reloads this very process: the process runs in the unit, or
/// the command names its pid. A command that needs other variables, or that sends a signal in a
/// shell, is left to the operator.
fn reloads_this(service: &Service, argv: &[String]) -> bool {
    let names_it = argv.iter().any(|word| word.contains("{pid}"));
    let program = argv.first().and_then(|path| path.rsplit('/').next());
    let does_nothing = ["kill", "pkill", "killall", "true"];
    let is_kill = program.is_some_and(|name| does_nothing.contains(&name));
    let in_shell = argv
        .iter()
        .any(|word| word == "kill" || word.contains("kill "));
    let has_variable = argv.iter().any(|word| word.contains(['$', '%']));
    (service.is_its || names_it) && !is_kill && !in_shell && !has_variable
}

/// Returns the signal that a service sends for a reload.
fn declared(service: &Service) -> Option<Declared> {
    let by_unit = service.reloads.iter().find_map(|argv| signal_of(argv));
    let signal = by_unit.or(service.signal)?;
    let by = match by_unit {
        Some(_) => format!("ExecReload of {}", service.name),
        None => format!("the action `reload` of {}", service.name),
    };
    let why = format!("{by} sends {}", signal.name());
    Some(Declared { signal, why })
}

/// Writes the sentences that the help of the program has about a signal.
fn quote(signal: Signal, help: &Help, text: &mut GroupText, facts: &mut Vec<Fact>) {
    for quote in help.about(signal) {
        text.note(&quote);
        facts.push(Fact::guessed(About::Reload, quote));
    }
}

/// Writes the signal that a service sends. It counts if the process takes it.
fn write_declared(signal: Signal, why: &str, signals: &Signals, text: &mut GroupText) {
    let name = quoted(signal.name());
    if signals.takes(signal) {
        if signal != Signal::Hup {
            text.key("signal", &name, Source::Seen, why);
        }
        text.key("reloads", "true", Source::Guessed, why);
    } else {
        let why = format!("{why}, but in the process {}", signals.clause(signal));
        text.candidate("signal", &name, Source::Seen, &why);
        text.candidate("reloads", "true", Source::Guessed, &why);
    }
}

/// Writes what is known where nothing declares a signal.
fn write_undeclared(
    services: &Services,
    signals: &Signals,
    help: &Help,
    text: &mut GroupText,
    facts: &mut Vec<Fact>,
) {
    let actions = services
        .all
        .iter()
        .filter(|service| service.has_reload_action);
    for service in actions {
        let detail = format!("{} has an action `reload`", service.name);
        text.note(&detail);
        facts.push(Fact::guessed(About::Reload, detail));
    }
    let taken = signals.taken();
    if taken.is_empty() {
        let none = "takes none of SIGHUP, SIGUSR1 and SIGUSR2: no signal reloads it";
        text.note(&format!("the process {none}"));
        facts.push(Fact::seen(About::Reload, none));
        return;
    }
    for signal in &taken {
        quote(*signal, help, text, facts);
    }
    let first = taken.first().copied().unwrap_or(Signal::Hup);
    let names: Vec<&str> = taken.iter().map(|signal| signal.name()).collect();
    if first != Signal::Hup {
        let why = format!("it takes {}", names.join(", "));
        text.candidate("signal", &quoted(first.name()), Source::Seen, &why);
    }
    let why = format!(
        "it takes {}, which is no proof that it reloads: type it if its manual says so",
        names.join(", ")
    );
    text.candidate("reloads", "true", Source::Guessed, &why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_counts_if_it_reloads_this_process_and_needs_nothing_more() {
        let argv = |line: &str| -> Vec<String> {
            by_pid(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        };
        let unit = |is_its| Service {
            is_its,
            ..Service::default()
        };
        for (line, is_its, counts) in [
            ("/usr/sbin/x reload", true, true),
            ("/usr/sbin/x reload", false, false),
            ("/usr/sbin/x reload $MAINPID", false, true),
            ("/bin/kill -TERM $MAINPID", true, false),
            ("/bin/sh -c kill -HUP ${MAINPID}", true, false),
            ("/usr/sbin/x $OPTIONS reload", true, false),
        ] {
            assert_eq!(reloads_this(&unit(is_its), &argv(line)), counts, "{line}");
        }
        assert_eq!(argv("x ${MAINPID}"), ["x", "{pid}"]);
    }
}
