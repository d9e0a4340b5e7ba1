//! `hello agent`: answers the requests of a coordinator for this host, over stdin and stdout.
//!
//! The host's own `fleet.toml` says what may be reloaded here. A coordinator names groups, and no
//! command, path, signal or kind.

use std::time::Duration;

use serde_json::{Map, Value};

#[cfg(feature = "nats")]
pub(crate) use self::daemon::serve as serve_nats;
pub(crate) use self::options::Options;
use self::{
    attach::Listener,
    card::EndedBy,
    greeting::greet,
    host_agent::{Agent, refused},
    hosted::{Control, Hosted},
    input::{Heard, Input},
    output::{Output, Sign},
    run::AgentRun,
    successor::Successor,
};
use crate::{
    doctor,
    event::Verdict,
    fleet::Fleet,
    inventory::Expression,
    protocol::{
        Answer, FrameError, Refused, RefusedKind, Request, RunFrame, RunLine, RunVerb, VERSION,
    },
    report,
    runs::{ClaimedOperator, OpenRuns},
    screen, status,
};

mod attach;
mod candidates;
mod card;
#[cfg(feature = "nats")]
mod daemon;
mod earlier;
mod greeting;
mod guard;
mod host_agent;
mod hosted;
mod input;
mod kept;
mod lease;
mod options;
mod output;
mod pass;
mod run;
mod successor;
mod visit;

/// Waits for the end of every armed commit-confirmed timer of this host, and rolls back then.
/// Returns the exit code.
pub(crate) async fn resume_armed(options: Options) -> u8 {
    let agent = match Agent::new(options) {
        Ok(agent) => agent,
        Err(code) => return code,
    };
    // No coordinator reads its stdout.
    agent.output.give(Sign::None);
    agent.guard_all().await.exit()
}

/// Answers requests until the input ends. Returns the exit code.
pub(crate) async fn run(options: Options) -> u8 {
    // A connection that breaks must not take the agent with it: it finishes its batch. This fails
    // only where the agent leads a session already.
    let _ = nix::unistd::setsid();
    let mut agent = match Agent::new(options) {
        Ok(agent) => agent,
        Err(code) => return code,
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

impl Agent {
    /// # Errors
    /// Fails with the exit code if no thread can be started.
    fn new(options: Options) -> Result<Self, u8> {
        let output = Output::start().map_err(|e| {
            let why = format!("cannot start a thread: {e}");
            screen::tell(&screen::failure(&why));
            Verdict::Failed.exit()
        })?;
        Ok(Self {
            fleet: Fleet::load(&options.file),
            options,
            output,
            claimed: None,
            key: None,
        })
    }

    /// Answers requests until the coordinator has left. A session that has begun waits for it then,
    /// as long as its lease says.
    async fn converse(&mut self) -> Result<(), FrameError> {
        self.output.send(&greet(&self.fleet, &self.options));
        let mut input = Input::read();
        let mut hosted = Hosted::new(self.lease());
        let ended = loop {
            if hosted.control.ended_by.is_some() {
                break Ok(());
            }
            match input.next(|| hosted.control.left()).await {
                Heard::Frame(frame) => {
                    if hosted.control.hear()
                        && let Some(run) = &mut hosted.run
                    {
                        run.stamp();
                    }
                    match self.frame(frame, &mut hosted, &mut input).await {
                        Ok(true) => {}
                        // Nothing but the `finish` of its run disarms a timer.
                        Ok(false) if hosted.is_guarded() => input.close(),
                        Ok(false) => hosted.control.end(EndedBy::Coordinator),
                        Err(why) => break Err(why),
                    }
                }
                Heard::Visitor(visitor) => {
                    let Hosted {
                        control,
                        interrupts,
                        ..
                    } = &mut hosted;
                    self.visit(visitor, control, &mut input, interrupts).await;
                }
                Heard::Closed(_) if hosted.control.waits() => {}
                Heard::Closed(why) => break why.map_or(Ok(()), Err),
                Heard::Late => hosted.control.end_late(),
                Heard::Terminated => hosted.control.end(EndedBy::Terminated),
            }
        };
        let is_guarded = hosted.is_guarded();
        let Hosted {
            run,
            interrupts,
            mut control,
        } = hosted;
        let by = control.ended_by.take();
        let armed = control.card.as_ref().filter(|_| is_guarded);
        let armed = armed.map(|card| card.id.clone());
        if let Some(run) = run {
            run.abandon(&self.output, &interrupts, by.clone()).await;
        }
        input.listener = None;
        if let Some(EndedBy::TakeOver(_)) = by
            && let (Some(state), Some(card)) = (&self.options.state, &control.card)
        {
            attach::mark_taken_over(state, &card.id);
        }
        control.successors.into_iter().for_each(Successor::answer);
        self.output.finish();
        if let Some(run) = armed
            && by != Some(EndedBy::Terminated)
        {
            self.guard(&run).await;
        }
        ended
    }

    /// Acts on one frame. Returns false if it ends the connection.
    async fn frame(
        &mut self,
        frame: Value,
        hosted: &mut Hosted,
        input: &mut Input,
    ) -> Result<bool, FrameError> {
        if frame.get("n").is_some() {
            self.run_frame(frame, hosted, input).await;
            return Ok(true);
        }
        let request = match serde_json::from_value::<Request>(frame) {
            Ok(request) => request,
            Err(why) => {
                let text = format!("this hello does not know the frame: {why}");
                self.output
                    .send(&Answer::refused(RefusedKind::UnknownFrame, text));
                return Ok(true);
            }
        };
        match request {
            Request::Bye => return Ok(false),
            Request::Beat { .. } => {}
            Request::Interrupt { level, .. } => hosted.control.interrupt(level),
            Request::Blob {
                sha256, at, b64, ..
            } => self.blob((&sha256, at, &b64), hosted, input).await,
            Request::Attach { run, key } if self.is_taken() && hosted.run.is_none() => {
                return Ok(!self.pass(&run, key, input).await);
            }
            request => {
                self.output.give(Sign::Busy);
                let answer = self.answer(request).await;
                self.output.give(Sign::Idle);
                for line in answer? {
                    self.output.send(&line);
                }
            }
        }
        Ok(true)
    }

    /// Carries out a request of a run, or refuses it.
    async fn run_frame(&mut self, frame: Value, hosted: &mut Hosted, input: &mut Input) {
        let n = frame.get("n").and_then(Value::as_u64).unwrap_or_default();
        let refused = match serde_json::from_value::<RunFrame>(frame) {
            Ok(frame) if self.is_taken() => {
                let run = hosted.run.get_or_insert_with(|| AgentRun::new(&frame.run));
                if let Some(lines) = run.check(&frame) {
                    lines.into_iter().for_each(|line| self.output.line(line));
                    return;
                }
                self.wait_for_coordinator(&frame, run, &mut hosted.control, input)
                    .await;
                if let Some(need) = run.need(&frame) {
                    run.waiting = Some(frame);
                    self.output.send(&need);
                } else {
                    self.carry_out(frame, hosted, input).await;
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

    /// Opens the socket of a session with its survey, if its coordinator can come back.
    async fn wait_for_coordinator(
        &self,
        frame: &RunFrame,
        run: &AgentRun,
        control: &mut Control,
        input: &mut Input,
    ) {
        let RunVerb::Survey(order) = &frame.verb else {
            return;
        };
        if order.dry_run || self.key.is_none() || control.waits() {
            return;
        }
        *run.card.of.borrow_mut() = order.of.as_ref().map(|of| of.run.clone());
        run.card.groups.borrow_mut().clone_from(&order.groups);
        let Some(state) = self.options.state.as_deref() else {
            return;
        };
        // Without a socket the session ends with its connection.
        if let Ok(listener) = Listener::open(state, &run.card.id).await {
            input.listener = Some(listener);
            control.card = Some(run.card.clone());
        }
    }

    /// Takes bytes of a candidate, and begins the survey that waits for them.
    async fn blob(
        &mut self,
        (sha256, at, b64): (&str, usize, &str),
        hosted: &mut Hosted,
        input: &mut Input,
    ) {
        let Some(run) = &mut hosted.run else { return };
        let Some(waiting) = &run.waiting else { return };
        if let Err(why) = run.candidates.add(sha256, at, b64) {
            let refused = refused(RefusedKind::BadDigest, why.to_string());
            self.output.send(&RunLine::refused(waiting.n, 0, refused));
            run.waiting = None;
        } else if run.need(waiting).is_none()
            && let Some(frame) = run.waiting.take()
        {
            self.carry_out(frame, hosted, input).await;
        }
    }

    /// Carries out a request, and listens meanwhile. The end of the connection, or of the lease,
    /// interrupts it only as long as nothing is touched. A batch is carried out to its end.
    async fn carry_out(&mut self, frame: RunFrame, hosted: &mut Hosted, input: &mut Input) {
        let Hosted {
            run,
            interrupts,
            control,
        } = hosted;
        let Some(run) = run else { return };
        let commits = matches!(&frame.verb, RunVerb::Do { .. } | RunVerb::Finish(_));
        let is_untouched = run.is_untouched() && !commits;
        let operator_interrupts = interrupts.clone();
        self.output.give(Sign::Busy);
        let lines = {
            let work = run.carry_out(self, frame, interrupts);
            tokio::pin!(work);
            loop {
                let heard = tokio::select! {
                    biased;
                    lines = &mut work => break lines,
                    heard = input.next(|| control.left().filter(|_| is_untouched)) => heard,
                };
                match heard {
                    Heard::Frame(frame) => {
                        control.lease.renew();
                        interrupt(frame, control);
                    }
                    Heard::Visitor(visitor) => {
                        self.visit(visitor, control, input, &operator_interrupts)
                            .await;
                    }
                    Heard::Closed(_) => {}
                    Heard::Late => control.end_late(),
                    Heard::Terminated => control.end(EndedBy::Terminated),
                }
                let has_left = !input.is_connected() && !control.waits();
                if is_untouched && (has_left || control.ended_by.is_some()) {
                    control.interrupt(1);
                }
            }
        };
        control.armed = run.armed();
        lines.into_iter().for_each(|line| self.output.line(line));
        self.output.give(Sign::Idle);
    }

    /// Returns the lines of the answer to a request; none for a notice.
    async fn answer(&mut self, request: Request) -> Result<Vec<Answer>, FrameError> {
        let refuse = |kind, text: String| Ok(vec![Answer::refused(kind, text)]);
        match request {
            Request::Take {
                v,
                operator,
                key,
                silence_ms,
            } if v == VERSION => {
                self.claimed = Some(ClaimedOperator::from(&operator));
                self.key = key;
                if let Some(silence) = silence_ms {
                    self.output.hear_within(Duration::from_millis(silence));
                }
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
            Request::TakeOver(order) => match self.take_over(&order).await {
                Ok(lines) => Ok(lines),
                Err(Refused { kind, text }) => refuse(kind, text),
            },
            Request::Attach { .. } => refuse(
                RefusedKind::NotAllowed,
                "this connection has a run already".into(),
            ),
            Request::Blob { .. }
            | Request::Interrupt { .. }
            | Request::Beat { .. }
            | Request::Bye => Ok(Vec::new()),
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
fn interrupt(frame: Value, control: &Control) {
    if let Ok(Request::Interrupt { level, .. }) = serde_json::from_value(frame) {
        control.interrupt(level);
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
