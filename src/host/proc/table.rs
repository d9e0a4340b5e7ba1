//! The process table, read by `sysinfo`.
//!
//! A row is a hint: it selects the processes that are worth an exact read (`kernel.rs`). The start
//! time of `sysinfo` is in whole seconds and is used nowhere: the identity of a process is a pidfd
//! and the start time in ticks that is read after it.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// One process of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) pid: i32,
    /// None for the first process of a PID namespace.
    pub(crate) parent: Option<i32>,
    /// Without the kernel's mark of a deleted file. None for a thread of the kernel, for an ended
    /// process, and if this user may not see it.
    pub(crate) exe: Option<PathBuf>,
}

/// Reads parts of the process table, on any number of threads at once.
#[derive(Debug, Default)]
pub(crate) struct TableReader {
    /// Systems that no thread uses now. A new one reads `/proc/stat`, which takes long on a machine
    /// with many cores: so there is one per thread, and not one per part.
    idle: Mutex<Vec<System>>,
}

impl TableReader {
    /// Reads the rows of `pids`. A process has no row if it is gone, or if it could not be read.
    pub(crate) fn rows(&self, pids: &[i32]) -> Vec<Row> {
        let Some(mut system) = self.pop().or_else(|| System::new().ok()) else {
            return Vec::new();
        };
        let keys: Vec<Pid> = pids
            .iter()
            .filter_map(|pid| Some(Pid::from_u32(u32::try_from(*pid).ok()?)))
            .collect();
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&keys),
            false,
            ProcessRefreshKind::nothing()
                .without_tasks()
                .with_exe(UpdateKind::Always),
        );
        let rows = keys
            .iter()
            .filter_map(|pid| {
                let process = system.process(*pid)?;
                Some(Row {
                    pid: number(*pid)?,
                    parent: process.parent().and_then(number),
                    exe: process.exe().map(ToOwned::to_owned),
                })
            })
            .collect();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(system);
        rows
    }

    fn pop(&self) -> Option<System> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }
}

fn number(pid: Pid) -> Option<i32> {
    i32::try_from(pid.as_u32()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::kernel::{Stat, pids, strip_deleted};

    #[test]
    fn a_row_has_parent_and_executable_as_the_kernel_shows_them() {
        let me = i32::try_from(std::process::id()).unwrap();
        let rows = TableReader::default().rows(&[me, i32::MAX]);
        let [row] = rows.as_slice() else {
            panic!("one of these processes exists: {rows:?}");
        };
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        assert_eq!(row.pid, me);
        assert_eq!(row.parent, Some(Stat::of(me).unwrap().parent));
        assert_eq!(row.exe.as_deref(), Some(strip_deleted(&exe)));
    }

    #[test]
    fn one_reader_serves_several_parts() {
        let reader = TableReader::default();
        let pids = pids().unwrap();
        let (first, second) = pids.split_at(pids.len() / 2);
        let rows: Vec<i32> = [reader.rows(first), reader.rows(second)]
            .iter()
            .flatten()
            .map(|row| row.pid)
            .collect();
        assert!(rows.is_sorted(), "{rows:?}");
        assert!(rows.contains(&i32::try_from(std::process::id()).unwrap()));
        assert_eq!(reader.idle.lock().unwrap().len(), 1);
    }
}
