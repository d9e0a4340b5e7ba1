//! Connections that come to the socket of a session: its own coordinator again, or another one.

use serde_json::json;

use super::{
    attach::Visitor,
    card::{Card, EndedBy},
    host_agent::Agent,
    hosted::Control,
    input::Input,
    successor::{Successor, send},
};
use crate::{
    event::{Interrupts, interrupted},
    protocol::{Answer, RefusedKind, Request, TakeOver},
    runs,
};

impl Agent {
    /// Lets the coordinator of the session go on over a new connection, or another coordinator end
    /// the session.
    pub(super) async fn visit(
        &self,
        visitor: Visitor,
        control: &mut Control,
        input: &mut Input,
        interrupts: &Interrupts,
    ) {
        let Some(card) = control.card.clone() else {
            return;
        };
        let Visitor {
            request,
            reader,
            writer,
        } = visitor;
        match request {
            Request::Attach { run, key } if run == card.id && Some(&key) == self.key.as_ref() => {
                match self.raise(&card, control.attached + 1, interrupts).await {
                    Ok(()) => {}
                    Err(text) => return send(writer, &Answer::refused(RefusedKind::Failed, text)),
                }
                control.attached += 1;
                control.lease.renew();
                if self.output.replace(writer).is_ok() {
                    input.replace(reader);
                    let (epoch, n) = (card.epoch.get(), card.n.get());
                    let attached = Answer::of([("epoch", json!(epoch)), ("n", json!(n))]);
                    self.output.send(&attached);
                    leave_stdio();
                }
            }
            Request::TakeOver(order) if is_meant(&order, &card) => {
                let operator = order.operator.host.as_deref().unwrap_or("another host");
                let by = format!("uid {} on {operator}", order.operator.uid);
                control.end(EndedBy::TakeOver(by));
                let successor = Successor::new(writer, &card.id);
                control.successors.push(successor);
            }
            _ => {
                let text = "the session is of another run, or of another coordinator";
                send(writer, &Answer::refused(RefusedKind::NotAllowed, text));
            }
        }
    }

    /// Raises the fencing token: no request that is still on the way over the old connection has an
    /// effect.
    async fn raise(
        &self,
        card: &Card,
        attached: u64,
        interrupts: &Interrupts,
    ) -> Result<(), String> {
        let Some(state) = self.options.state.as_deref() else {
            return Err("there is no state directory on this host".into());
        };
        // Each holder of the session has a counter of its own; the run keeps its first one.
        let holder = format!("{}+{attached}", card.id);
        let until = interrupted(interrupts, 1);
        let epoch = runs::raise_counter(state, &holder, until).await;
        card.epoch.set(epoch.map_err(|e| e.to_string())?);
        Ok(())
    }
}

/// Tells whether another coordinator ends this session.
fn is_meant(order: &TakeOver, card: &Card) -> bool {
    let of = card.of.borrow();
    let continues = |run: &String| *run == card.id || of.as_ref() == Some(run);
    let groups = card.groups.borrow();
    let has_one = |wanted: &Vec<String>| {
        wanted.is_empty() || groups.is_empty() || groups.iter().any(|group| wanted.contains(group))
    };
    order.runs.contains(&card.id)
        || order.of.as_ref().is_some_and(continues)
        || order.groups.as_ref().is_some_and(has_one)
}

/// Leaves stdin, stdout and stderr of the old connection: what carried it can end then.
fn leave_stdio() {
    let Ok(null) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    else {
        return;
    };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    let _ = rustix::stdio::dup2_stderr(&null);
}
