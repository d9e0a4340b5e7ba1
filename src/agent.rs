//! `hello agent`: answers the requests of a coordinator for this host, over stdin and stdout.
//!
//! The host's own `fleet.toml` says what may be reloaded here. A coordinator names groups, and no
//! command, path, signal or kind.

use serde_json::{Map, Value};
use tokio::sync::watch;

pub(crate) use self::options::Options;
use self::{
    greeting::greet,
    host_agent::{Agent, refused},
    input::Input,
    output::Output,
    run::AgentRun,
};
use crate::{
    doctor,
    event::{Interrupts, Verdict},
    fleet::Fleet,
    inventory::Expression,
    protocol::{
        Answer, FrameError, Refused, RefusedKind, Request, RunFrame, RunLine, RunVerb, VERSION,
    },
    report,
    runs::{ClaimedOperator, OpenRuns},
    screen, status,
};

mod candidates;
mod earlier;
mod greeting;
mod host_agent;
mod input;
mod kept;
mod options;
mod output;
mod run;

/// Answers requests until the input ends. Returns the exit code.
pub(crate) async fn run(options: Options) -> u8 {
    // A connection that breaks must not take the agent with it: it finishes its batch. This fails
    // only where the agent leads a session already.
    let _ = nix::unistd::setsid();
    let fleet = Fleet::load(&options.file);
    let output = match Output::start() {
        Ok(output) => output,
        Err(e) => {
            let why = format!("cannot start a thread: {e}");
            screen::tell(&screen::failure(&why));
            return Verdict::Failed.exit();
        }
    };
    let mut agent = Agent {
        fleet,
        options,
        output,
        claimed: None,
    };
    match agent.converse().await {
        Ok(()) => 0,
        Err(why) => {
            agent
                .output
                .send(&Answer::refused(RefusedKind::UnknownFrame, why.to_string()));
            agent.output.finish();
            screen::tell(&screen::failure(&why.to_string()));
            Verdict::Failed.exit()
        }
    }
}

/// The run of this connection, and the interrupts of its operator.
struct Runs {
    run: Option<AgentRun>,
    level: watch::Sender<u8>,
    interrupts: Interrupts,
}

impl Default for Runs {
    fn default() -> Self {
        let (level, interrupts) = watch::channel(0);
        Self {
            run: None,
            level,
            interrupts,
        }
    }
}

impl Runs {
    fn interrupt(&self, level: u8) {
        self.level.send_replace(level);
    }
}

impl Agent {
    async fn converse(&mut self) -> Result<(), FrameError> {
        self.output.send(&greet(&self.fleet, &self.options));
        let mut input = Input::read();
        let mut runs = Runs::default();
        let mut is_dismissed = false;
        let ended = loop {
            let frame = match input.next().await {
                Some(Ok(frame)) => frame,
                Some(Err(why)) => break Err(why),
                None => break Ok(()),
            };
            if frame.get("n").is_some() {
                self.run_frame(frame, &mut runs, &mut input).await;
                continue;
            }
            let request = match serde_json::from_value::<Request>(frame) {
                Ok(request) => request,
                Err(why) => {
                    let text = format!("this hello does not know the frame: {why}");
                    self.output
                        .send(&Answer::refused(RefusedKind::UnknownFrame, text));
                    continue;
                }
            };
            match request {
                Request::Bye => {
                    is_dismissed = true;
                    break Ok(());
                }
                Request::Interrupt { level, .. } => runs.interrupt(level),
                Request::Blob {
                    sha256, at, b64, ..
                } => self.blob((&sha256, at, &b64), &mut runs, &mut input).await,
                request => {
                    self.output.work(true);
                    let answer = self.answer(request).await;
                    self.output.work(false);
                    match answer {
                        Ok(lines) => lines.iter().for_each(|line| self.output.send(line)),
                        Err(why) => break Err(why),
                    }
                }
            }
        };
        if let Some(run) = runs.run {
            run.abandon(&self.output, &runs.interrupts, is_dismissed)
                .await;
        }
        self.output.finish();
        ended
    }

    /// Carries out a request of a run, or refuses it.
    async fn run_frame(&mut self, frame: Value, runs: &mut Runs, input: &mut Input) {
        let n = frame.get("n").and_then(Value::as_u64).unwrap_or_default();
        let refused = match serde_json::from_value::<RunFrame>(frame) {
            Ok(frame) if self.is_taken() => {
                let run = runs.run.get_or_insert_with(|| AgentRun::new(&frame.run));
                if let Some(lines) = run.check(&frame) {
                    lines.into_iter().for_each(|line| self.output.line(line));
                } else if let Some(need) = run.need(&frame) {
                    run.waiting = Some(frame);
                    self.output.send(&need);
                } else {
                    self.carry_out(frame, runs, input).await;
                }
                return;
            }
            Ok(_) => refused(
                RefusedKind::NotAllowed,
                "the first frame must choose the dialect".into(),
            ),
            Err(why) => refused(
                RefusedKind::UnknownFrame,
                format!("this hello does not know the request: {why}"),
            ),
        };
        self.output.send(&RunLine::refused(n, 0, refused));
    }

    /// Takes bytes of a candidate, and begins the survey that waits for them.
    async fn blob(
        &mut self,
        (sha256, at, b64): (&str, usize, &str),
        runs: &mut Runs,
        input: &mut Input,
    ) {
        let Some(run) = &mut runs.run else { return };
        let Some(waiting) = &run.waiting else { return };
        if let Err(why) = run.candidates.add(sha256, at, b64) {
            let refused = refused(RefusedKind::BadDigest, why.to_string());
            self.output.send(&RunLine::refused(waiting.n, 0, refused));
            run.waiting = None;
        } else if run.need(waiting).is_none()
            && let Some(frame) = run.waiting.take()
        {
            self.carry_out(frame, runs, input).await;
        }
    }

    /// Carries out a request, and listens for an interrupt meanwhile. The end of the input is an
    /// interrupt only as long as nothing is touched. A batch is carried out to its end.
    async fn carry_out(&mut self, frame: RunFrame, runs: &mut Runs, input: &mut Input) {
        let Some(run) = &mut runs.run else { return };
        let commits = matches!(&frame.verb, RunVerb::Do { .. } | RunVerb::Finish(_));
        let is_untouched = run.is_untouched() && !commits;
        self.output.work(true);
        let lines = {
            let work = run.carry_out(self, frame, &mut runs.interrupts);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    lines = &mut work => break lines,
                    frame = input.next(), if !input.has_ended() => match frame {
                        Some(Ok(frame)) => interrupt(frame, &runs.level),
                        Some(Err(_)) | None if is_untouched => {
                            runs.level.send_replace(1);
                        }
                        Some(Err(_)) | None => {}
                    }
                }
            }
        };
        lines.into_iter().for_each(|line| self.output.line(line));
        self.output.work(false);
    }

    /// Returns the lines of the answer to a request; none for a notice.
    async fn answer(&mut self, request: Request) -> Result<Vec<Answer>, FrameError> {
        let refuse = |kind, text: String| Ok(vec![Answer::refused(kind, text)]);
        match request {
            Request::Take { v, operator } if v == VERSION => {
                self.claimed = Some(ClaimedOperator::from(&operator));
                Ok(Vec::new())
            }
            Request::Take { v, .. } => refuse(
                RefusedKind::Skewed,
                format!("the coordinator chose dialect {v}, and this hello speaks {VERSION}"),
            ),
            _ if !self.is_taken() => refuse(
                RefusedKind::NotAllowed,
                "the first frame must choose the dialect".into(),
            ),
            Request::Status { groups } => match self.selected(&groups, groups.is_empty()) {
                Ok(fleet) => lines(self.status(fleet).await, "instances"),
                Err(Refused { kind, text }) => refuse(kind, text),
            },
            Request::Doctor { groups, pid } => match self.selected(&groups, groups.is_empty()) {
                Ok(fleet) => self.doctor(fleet, pid).await,
                Err(Refused { kind, text }) => refuse(kind, text),
            },
            Request::History(query) => self.history(&query),
            Request::Forget {
                item,
                abandon,
                check,
            } => {
                let open = if abandon {
                    OpenRuns::Abandoned
                } else {
                    OpenRuns::Refused
                };
                self.forget(&item, open, check).await
            }
            Request::Blob { .. } | Request::Interrupt { .. } | Request::Bye => Ok(Vec::new()),
        }
    }

    async fn doctor(&self, fleet: Fleet, pid: Option<i32>) -> Result<Vec<Answer>, FrameError> {
        let answer = doctor::answer(doctor::Options {
            pid,
            on: Expression::default(),
            except: Expression::default(),
            groups: Vec::new(),
            fleet,
            shown: doctor::Shown::Checks,
            output: report::Output::Json,
        });
        match answer.await {
            Ok(answer) => lines(answer, "processes"),
            Err(why) => Ok(vec![Answer::refused(RefusedKind::Failed, why.to_string())]),
        }
    }

    async fn status(&self, fleet: Fleet) -> Value {
        status::answer(status::Options {
            fleet,
            hosts: status::HostOptions::default(),
            state: self.options.state.clone(),
            state_args: String::new(),
            output: report::Output::Json,
            quiet: false,
        })
        .await
    }
}

/// Passes on an interrupt. Any other frame comes too early, and has no effect.
fn interrupt(frame: Value, level: &watch::Sender<u8>) {
    if let Ok(Request::Interrupt { level: sent, .. }) = serde_json::from_value(frame) {
        level.send_replace(sent);
    }
}

/// Parts the object that a command prints into lines: `key` names its longest list.
fn lines(object: Value, key: &str) -> Result<Vec<Answer>, FrameError> {
    let mut result = match object {
        Value::Object(result) => result,
        _ => Map::new(),
    };
    let rows = match result.remove(key) {
        Some(Value::Array(rows)) => rows,
        _ => Vec::new(),
    };
    Answer::lines(rows, result)
}
