//! The title that a process has written over its command line.

use super::cmdline::CommandLine;
use crate::kernel::Stat;

/// Longest title that the kernel shows if it extends into the environment, in bytes: one page
/// (proc(5)).
const SHOWN: usize = 4096;

/// Distance from the end of its memory, in bytes, within which a title may have been cut. Programs
/// keep one or two bytes for the end (nginx two), and some round down.
const MARGIN: usize = 8;

/// Returns the title of a process; none if its command line has its arguments, or cannot be read.
pub(crate) fn of(pid: i32) -> Option<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = CommandLine::parse(&raw);
    line.rewritten.then_some(line.name)
}

/// Tells whether a title of this length fills all the room that its process has for it, so that
/// more of it may have been cut off. The room is what the kernel has put arguments and environment
/// into.
pub(crate) fn is_cut(pid: i32, length: usize) -> bool {
    if length + MARGIN >= SHOWN {
        return true;
    }
    match Stat::of(pid) {
        Ok(stat) if stat.arguments > 0 => {
            // A process that moved its arguments elsewhere has room for them there.
            let room = stat.environment_end.checked_sub(stat.arguments);
            room.filter(|room| *room > 0)
                .is_some_and(|room| usize::try_from(room).is_ok_and(|room| length + MARGIN >= room))
        }
        _ => true,
    }
}

/// Returns each text that may stand between `before` and `after` in a title. Without `after` it
/// goes on to the end.
pub(crate) fn values<'a>(title: &'a str, (before, after): (&str, &str)) -> Vec<&'a str> {
    let rests = title
        .match_indices(before)
        .map(|(start, _)| &title[start + before.len()..]);
    let value = |rest: &'a str| -> Vec<&'a str> {
        if after.is_empty() {
            return vec![rest];
        }
        let ends = rest.match_indices(after);
        ends.map(|(end, _)| &rest[..end]).collect()
    };
    rests
        .flat_map(value)
        .filter(|value| !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_between_the_texts_of_a_pattern() {
        let fpm = "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)";
        let pattern = ("master process (", ")");
        assert_eq!(values(fpm, pattern), ["/etc/php/8.2/fpm/php-fpm.conf"]);
        assert_eq!(values("app: -c /a b", ("-c ", "")), ["/a b"]);
        let none: [&str; 0] = [];
        assert_eq!(values("app: worker", pattern), none);
        assert_eq!(values("x: master process ()", pattern), none);
    }

    #[test]
    fn every_reading_of_a_title_is_a_value() {
        let pattern = ("(", ")");
        assert_eq!(
            values("x: (a (b) c)", pattern),
            ["a (b", "a (b) c", "b", "b) c"]
        );
    }

    #[test]
    fn a_title_that_fills_its_room_may_be_cut_off() {
        let me = std::process::id().cast_signed();
        assert!(!is_cut(me, 10) && is_cut(me, 64 << 20));
    }
}
