//! The gate: a command of the operator that decides after a wave if the run goes on.

use std::time::Duration;

use crate::{
    event::{INTERRUPTED, Instance, Interrupts},
    host::exec::{self, Output, RunError},
};

/// The longest time in which a gate must end.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The end of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GateOutcome {
    /// Its exit code; none if it could not be run or did not exit by itself.
    pub exit: Option<i32>,
    /// Why there is no exit code, and at most 64 KiB of stdout and stderr in their order.
    pub output: String,
}

/// Runs a gate as this user, in this directory and with this environment. Its stdin has the
/// instances of the wave, one JSON object per line.
pub(crate) async fn run(
    argv: &[String],
    run_id: &str,
    wave: usize,
    instances: &[Instance],
    interrupts: &mut Interrupts,
) -> GateOutcome {
    let input = instances
        .iter()
        .filter_map(|instance| serde_json::to_string(instance).ok())
        .flat_map(|line| (line + "\n").into_bytes())
        .collect();
    let mut output = Output::default();
    let result = tokio::select! {
        biased;
        Ok(_) = interrupts.wait_for(|count| *count > 0) => Err(INTERRUPTED.to_owned()),
        result = run_gate(argv, run_id, wave, input, &mut output, LIMIT) => {
            result.map_err(|e| e.to_string())
        }
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    match result {
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

async fn run_gate(
    argv: &[String],
    run_id: &str,
    wave: usize,
    input: Vec<u8>,
    output: &mut Output,
    limit: Duration,
) -> Result<i32, RunError> {
    exec::operators(
        argv,
        &[("HELLO_RUN", run_id), ("HELLO_WAVE", &wave.to_string())],
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

    async fn outcome(argv: &[String], instances: &[Instance]) -> GateOutcome {
        let (_counter, mut interrupts) = watch::channel(0);
        run(argv, "r1", 2, instances, &mut interrupts).await
    }

    #[tokio::test]
    async fn a_gate_gets_its_run_and_wave_and_its_output_stays_in_order() {
        let instance = Instance {
            endpoint: "http://127.0.0.1:1/".into(),
            ..Instance::new("web", 7, 1)
        };
        let GateOutcome { exit, output } = outcome(
            &sh("echo $HELLO_RUN $HELLO_WAVE; echo no >&2; cat; echo \"$PATH\"; exit 3"),
            &[instance.clone(), instance],
        )
        .await;
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(
            (exit, lines.len(), &lines[..2]),
            (Some(3), 5, &["r1 2", "no"][..]),
            "{output}"
        );
        let instance: serde_json::Value = serde_json::from_str(lines[3]).unwrap();
        assert_eq!(
            (
                &instance["pid"],
                &instance["group"],
                &instance["endpoint"],
                &instance["outcome"]
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
            "a gate has the environment of the operator"
        );
    }

    #[tokio::test]
    async fn a_gate_that_reads_nothing_or_prints_too_much_does_not_block() {
        let instance = Instance::new("web", 7, 1);
        let result = outcome(
            &sh("head -c 200000 /dev/zero; exit 0"),
            &vec![instance; 5_000],
        )
        .await;
        assert_eq!((result.exit, result.output.len()), (Some(0), 64 << 10));
    }

    #[tokio::test]
    async fn a_gate_without_an_exit_code_reports_the_reason() {
        let nowhere = outcome(&["/nowhere/gate".into()], &[]).await;
        assert!(
            nowhere.exit.is_none()
                && nowhere
                    .output
                    .contains("`/nowhere/gate` could not be run: No such file"),
            "{nowhere:?}"
        );
        assert_eq!(outcome(&[], &[]).await.exit, None);
        let killed = outcome(&sh("echo so far; kill -9 $$"), &[]).await;
        assert_eq!(
            killed,
            GateOutcome {
                exit: None,
                output: "`sh` was ended by signal 9\nso far\n".into()
            }
        );
        assert_eq!(outcome(&sh("exit 127"), &[]).await.exit, Some(127));
    }

    /// Waits until the process has ended; a zombie counts.
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
    async fn a_gate_ends_with_all_its_processes_at_its_limit_or_an_interrupt() {
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
        let mut limit = Duration::from_millis(200);
        let mut output = Output::default();
        // On a busy machine the child may not have started by then.
        while pid().is_none() {
            output = Output::default();
            let result = run_gate(&script, "r1", 1, Vec::new(), &mut output, limit).await;
            assert!(matches!(result, Err(RunError::Limit(..))), "{result:?}");
            limit *= 2;
        }
        assert_eq!(output.stdout, b"so far\n");
        ended(pid().unwrap()).await;
        std::fs::remove_file(&there).unwrap();
        let (counter, mut interrupts) = watch::channel(0);
        let interrupt = async {
            while pid().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            counter.send(1).unwrap();
        };
        let (result, ()) = tokio::join!(run(&script, "r1", 1, &[], &mut interrupts), interrupt);
        assert!(
            result.exit.is_none() && result.output.contains(INTERRUPTED),
            "{result:?}"
        );
        ended(pid().unwrap()).await;
        let never = run(
            &sh(&format!("rm '{}'", there.display())),
            "r1",
            1,
            &[],
            &mut interrupts,
        )
        .await;
        assert!(
            never.exit.is_none() && there.exists(),
            "no gate runs after an interrupt: {never:?}"
        );
    }
}
