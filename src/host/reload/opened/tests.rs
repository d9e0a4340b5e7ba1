#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::io::{Read, Write};

use super::*;
use crate::{event::Instance, fleet::Fleet, step::Content};

/// A shell that opens the files whose paths it reads, one a line, and says when it has.
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

    fn opens(&mut self, path: &Path) {
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
fn only_what_is_opened_after_the_signal_counts() {
    if !may_watch() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
    [&one, &other]
        .iter()
        .for_each(|path| std::fs::write(path, "x").unwrap());
    let shift = |path: &PathBuf| TargetChange {
        path: path.clone(),
        from: None,
        to: Content::read(path).unwrap(),
        secret: false,
    };
    let openings = Openings::default();
    let mut shell = Shell::start();
    let (member, pid) = (member(shell.pid(), &[&one, &other]), shell.pid());
    let now = || openings.now(pid, &member.instance.targets);
    assert_eq!(now(), Opened::Unknown);
    openings.mark([shift(&one), shift(&other)].iter());
    assert_eq!(now(), Opened::Unknown, "it was not signalled");
    shell.opens(&one);
    openings.begin(&member);
    assert_eq!(now(), Opened::Not(one.clone()));
    File::open(&one).unwrap();
    assert_eq!(
        now(),
        Opened::Not(one.clone()),
        "the run itself has opened it"
    );
    shell.opens(&one);
    assert_eq!(now(), Opened::Not(other.clone()));
    shell.opens(&other);
    assert_eq!(now(), Opened::Each);
    openings.begin(&member);
    assert_eq!(now(), Opened::Not(one), "it is signalled once more");
}
