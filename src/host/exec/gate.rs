//! A command of the operator's that judges a wave.

use std::time::Duration;

use crate::{
    event::{INTERRUPTED, Instance, Interrupts},
    host::exec::{self, Output, RunError},
};

/// Longest that it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateOutcome {
    /// Its exit code; none where it could not be run or did not end by itself.
    pub exit: Option<i32>,
    /// Why there is no exit code, and what it printed: 64 KiB at most, stdout and stderr as they
    /// came.
    pub output: String,
}

/// Runs it as the operator would: as this user, here, with this environment. It is given the
/// instances of the wave on stdin, one JSON object a line.
pub(crate) async fn ask(
    argv: &[String],
    run: &str,
    wave: usize,
    instances: &[&Instance],
    halts: &mut Interrupts,
) -> GateOutcome {
    let input = instances
        .iter()
        .filter_map(|i| serde_json::to_string(i).ok())
        .flat_map(|line| (line + "\n").into_bytes())
        .collect();
    let mut output = Output::default();
    let ran = tokio::select! {
        biased;
        Ok(_) = halts.wait_for(|n| *n > 0) => Err(INTERRUPTED.to_owned()),
        ran = run_it(argv, run, wave, input, &mut output, LIMIT) => ran.map_err(|e| e.to_string()),
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    match ran {
        Ok(code) => GateOutcome {
            exit: Some(code),
            output: printed.into_owned(),
        },
        Err(why) if printed.is_empty() => GateOutcome {
            exit: None,
            output: why,
        },
        Err(why) => GateOutcome {
            exit: None,
            output: format!("{why}\n{printed}"),
        },
    }
}

async fn run_it(
    argv: &[String],
    run: &str,
    wave: usize,
    input: Vec<u8>,
    output: &mut Output,
    limit: Duration,
) -> Result<i32, RunError> {
    exec::operators(
        argv,
        &[("HELLO_RUN", run), ("HELLO_WAVE", &wave.to_string())],
        input,
        output,
        limit,
    )
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use tokio::sync::watch;

    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(String::from).into()
    }

    async fn said(argv: &[String], instances: &[&Instance]) -> GateOutcome {
        let (_tell, mut halts) = watch::channel(0);
        ask(argv, "r1", 2, instances, &mut halts).await
    }

    #[tokio::test]
    async fn it_is_told_of_the_run_and_its_wave_and_what_it_says_stays_in_order() {
        let one = Instance {
            endpoint: "http://127.0.0.1:1/".into(),
            ..Instance::new("web", 7, 1)
        };
        let GateOutcome { exit, output } = said(
            &sh("echo $HELLO_RUN $HELLO_WAVE; echo no >&2; cat; echo \"$PATH\"; exit 3"),
            &[&one, &one],
        )
        .await;
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(
            (exit, lines.len(), &lines[..2]),
            (Some(3), 5, &["r1 2", "no"][..]),
            "{output}"
        );
        let told: serde_json::Value = serde_json::from_str(lines[3]).unwrap();
        assert_eq!(
            (
                &told["pid"],
                &told["group"],
                &told["endpoint"],
                &told["state"]
            ),
            (
                &7.into(),
                &"web".into(),
                &"http://127.0.0.1:1/".into(),
                &"untouched".into()
            )
        );
        assert_eq!(
            lines[4],
            std::env::var("PATH").unwrap(),
            "it has the environment of the operator"
        );
    }

    #[tokio::test]
    async fn one_that_reads_nothing_or_says_too_much_holds_up_nobody() {
        let one = Instance::new("web", 7, 1);
        let said = said(&sh("head -c 200000 /dev/zero; exit 0"), &vec![&one; 5_000]).await;
        assert_eq!((said.exit, said.output.len()), (Some(0), 64 << 10));
    }

    #[tokio::test]
    async fn one_that_could_not_be_run_or_has_no_exit_code_says_why() {
        let nowhere = said(&["/nowhere/gate".into()], &[]).await;
        assert!(
            nowhere.exit.is_none()
                && nowhere
                    .output
                    .contains("`/nowhere/gate` could not be run: No such file"),
            "{nowhere:?}"
        );
        assert_eq!(said(&[], &[]).await.exit, None);
        let killed = said(&sh("echo so far; kill -9 $$"), &[]).await;
        assert_eq!(
            killed,
            GateOutcome {
                exit: None,
                output: "`sh` was ended by signal 9\nso far\n".into()
            }
        );
        assert_eq!(said(&sh("exit 127"), &[]).await.exit, Some(127));
    }

    /// Waits until the process is gone, or only whoever adopted it has not taken in its end yet.
    async fn ended(pid: i32) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let lives = || {
            procfs::process::Process::new(pid)
                .and_then(|p| p.stat())
                .is_ok_and(|stat| stat.state != 'Z')
        };
        while lives() {
            assert!(std::time::Instant::now() < deadline, "pid {pid} lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn past_its_time_or_at_a_halt_it_ends_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("pid");
        let script = sh(&format!(
            "echo so far; sleep 600 & echo $! >'{0}.new'; mv '{0}.new' '{0}'; wait",
            there.display()
        ));
        let pid = || {
            std::fs::read_to_string(&there)
                .ok()
                .and_then(|text| text.trim().parse::<i32>().ok())
        };
        let (mut limit, mut said) = (Duration::from_millis(200), Output::default());
        // A busy machine may not have come to the child by then.
        while pid().is_none() {
            said = Output::default();
            let ran = run_it(&script, "r1", 1, Vec::new(), &mut said, limit).await;
            assert!(matches!(ran, Err(RunError::Limit(..))), "{ran:?}");
            limit *= 2;
        }
        assert_eq!(said.stdout, b"so far\n");
        ended(pid().unwrap()).await;
        std::fs::remove_file(&there).unwrap();
        let (tell, mut halts) = watch::channel(0);
        let halt = async {
            while pid().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tell.send(1).unwrap();
        };
        let (said, ()) = tokio::join!(ask(&script, "r1", 1, &[], &mut halts), halt);
        assert!(
            said.exit.is_none() && said.output.contains("interrupted"),
            "{said:?}"
        );
        ended(pid().unwrap()).await;
        let never = ask(
            &sh(&format!("rm '{}'", there.display())),
            "r1",
            1,
            &[],
            &mut halts,
        )
        .await;
        assert!(
            never.exit.is_none() && there.exists(),
            "nothing is run after a halt: {never:?}"
        );
    }
}
