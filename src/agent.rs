//! `hello agent`: answers the requests of a coordinator for this host, over stdin and stdout.
//!
//! The host's own `fleet.toml` says what may be reloaded here. A coordinator names groups, and no
//! command, path, signal or kind.

use serde_json::{Map, Value};

pub(crate) use self::options::Options;
use self::{greeting::greet, output::Output};
use crate::{
    doctor,
    event::Verdict,
    fleet::{Fleet, FleetError},
    inventory::Expression,
    protocol::{Answer, FrameError, FrameReader, Refused, RefusedKind, Request, VERSION},
    report, screen, status,
};

mod greeting;
mod options;
mod output;

/// Answers requests until the input ends. Returns the exit code.
pub(crate) async fn run(options: Options) -> u8 {
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
        is_taken: false,
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

struct Agent {
    fleet: Result<Fleet, FleetError>,
    options: Options,
    output: Output,
    /// True once the coordinator has chosen the dialect.
    is_taken: bool,
}

impl Agent {
    async fn converse(&mut self) -> Result<(), FrameError> {
        self.output.send(&greet(&self.fleet, &self.options));
        let mut reader = FrameReader::new(tokio::io::stdin());
        while let Some(frame) = reader.next::<Value>().await? {
            let request = match serde_json::from_value::<Request>(frame) {
                Ok(request) => request,
                Err(why) => {
                    let text = format!("this hello does not know the frame: {why}");
                    self.output
                        .send(&Answer::refused(RefusedKind::UnknownFrame, text));
                    continue;
                }
            };
            if request == Request::Bye {
                break;
            }
            self.output.work(true);
            for line in self.answer(request).await? {
                self.output.send(&line);
            }
            self.output.work(false);
        }
        self.output.finish();
        Ok(())
    }

    /// Returns the lines of the answer to a request; none for a notice.
    async fn answer(&mut self, request: Request) -> Result<Vec<Answer>, FrameError> {
        let refuse = |kind, text: String| Ok(vec![Answer::refused(kind, text)]);
        match request {
            Request::Take { v, .. } if v == VERSION => {
                self.is_taken = true;
                Ok(Vec::new())
            }
            Request::Take { v, .. } => refuse(
                RefusedKind::Skewed,
                format!("the coordinator chose dialect {v}, and this hello speaks {VERSION}"),
            ),
            _ if !self.is_taken => refuse(
                RefusedKind::NotAllowed,
                "the first frame must choose the dialect".into(),
            ),
            Request::Status { groups } => match self.selected(&groups) {
                Ok(fleet) => lines(self.status(fleet).await, "instances"),
                Err(Refused { kind, text }) => refuse(kind, text),
            },
            Request::Doctor { groups, pid } => match self.selected(&groups) {
                Ok(fleet) => self.doctor(fleet, pid).await,
                Err(Refused { kind, text }) => refuse(kind, text),
            },
            Request::Bye => Ok(Vec::new()),
        }
    }

    async fn doctor(&self, fleet: Fleet, pid: Option<i32>) -> Result<Vec<Answer>, FrameError> {
        let answer = doctor::answer(doctor::Options {
            pid,
            on: Expression::default(),
            except: Expression::default(),
            groups: Vec::new(),
            fleet,
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

    /// Returns those groups of the host's own file that a request names, or all of them.
    fn selected(&self, groups: &[String]) -> Result<Fleet, Refused> {
        let fleet = self
            .fleet
            .as_ref()
            .map_err(|why| refused(RefusedKind::Failed, why.to_string()))?;
        // A coordinator names the groups of all hosts, and each host has some of them.
        let is_known = |name: &&String| fleet.groups.iter().any(|group| group.name == **name);
        let known: Vec<String> = groups.iter().filter(is_known).cloned().collect();
        if known.is_empty() && !groups.is_empty() {
            let why = format!("none of the groups: {}", groups.join(", "));
            return Err(refused(RefusedKind::NoGroup, why));
        }
        fleet
            .clone()
            .select(&known, groups.is_empty())
            .map_err(|why| refused(RefusedKind::NoGroup, why.to_string()))
    }
}

fn refused(kind: RefusedKind, text: String) -> Refused {
    Refused { kind, text }
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
