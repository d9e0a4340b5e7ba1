#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

use super::*;
use crate::{event::Instance, fleet::Fleet, step::Content};

/// A shell that opens the files whose paths it reads, one a line, and answers each with a newline.
struct Shell(std::process::Child);

impl Shell {
    fn start() -> Self {
        let mut sh = std::process::Command::new("sh");
        sh.args(["-c", "while read path; do exec 3<\"$path\"; echo; done"]);
        Self(
            sh.stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn open(&mut self, path: &Path) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{}", path.display()).unwrap();
        assert_eq!(
            self.0.stdout.as_mut().unwrap().read(&mut [0; 8]).unwrap(),
            1
        );
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn member(pid: i32, targets: &[&Path]) -> PlannedInstance {
    let group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
    let instance = Instance {
        targets: targets.iter().map(|path| path.to_path_buf()).collect(),
        ..Instance::new("g", pid, 1)
    };
    PlannedInstance::new(instance, Arc::new(group), Vec::new())
}

#[test]
fn only_a_target_that_is_opened_after_the_signal_counts() {
    if !may_watch() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    [&first, &second]
        .iter()
        .for_each(|path| std::fs::write(path, "x").unwrap());
    let change = |path: &PathBuf| TargetChange {
        rev: None,
        path: path.clone(),
        from: None,
        to: Content::read(path).unwrap(),
        source: None,
        secret: false,
    };
    let openings = Openings::default();
    let mut shell = Shell::start();
    let pid = shell.pid();
    let member = member(pid, &[&first, &second]);
    let now = || openings.opened_by(pid, &member.instance.targets);
    assert_eq!(now(), Opened::Unknown);
    openings.mark([change(&first), change(&second)].iter());
    assert_eq!(now(), Opened::Unknown, "it was not signalled");
    shell.open(&first);
    openings.begin(&member);
    assert_eq!(now(), Opened::Not(first.clone()));
    File::open(&first).unwrap();
    assert_eq!(
        now(),
        Opened::Not(first.clone()),
        "the run itself has opened it"
    );
    shell.open(&first);
    assert_eq!(now(), Opened::Not(second.clone()));
    shell.open(&second);
    assert_eq!(now(), Opened::Each);
    openings.begin(&member);
    assert_eq!(now(), Opened::Not(first), "it is signalled once more");
}
