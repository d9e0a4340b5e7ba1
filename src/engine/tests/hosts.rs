//! A run over three scripted hosts. The way to one of them may break or be slow.

use std::cell::RefCell;

use super::*;
use crate::protocol::{Lost, Returned, Scope, SessionAnswer};

mod claims;
mod lost;
mod returned;
mod rounds;
mod sweep;

/// A host of the run, by its index.
pub(super) type Place = usize;

/// The fate of a request to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection breaks before the host reads it.
    LostBefore,
    /// The host carries it out, and its answer does not come.
    LostAfter,
    /// The connection breaks before the request is written.
    LostUnsent,
    /// The connection has broken before the request, and the run hears it.
    LostIdle,
    /// The host carries it out, and its answer comes when the run looks for the host again.
    Back,
    /// The host carries it out when the run looks for the host again.
    BackLater,
    /// It takes a minute to get there, and its answer takes another.
    Late,
}

/// A run over three hosts with two instances each. The instances of one host share a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostsCase {
    /// The wave of each instance.
    pub(super) waves: [[usize; 2]; 3],
    pub(super) budget: Share,
    pub(super) then: OnFailure,
    pub(super) bake: bool,
    pub(super) gate: bool,
    /// The wave that another round follows, with its last round.
    pub(super) rounds: Option<(usize, usize)>,
    /// The hosts that may be lost before they are touched.
    pub(super) reach: usize,
    /// The host and the number of the request that something becomes of.
    pub(super) fault: Option<(Place, usize, Fault)>,
}

/// One host after another.
pub(super) const ONE_BY_ONE: HostsCase = HostsCase {
    waves: [[1, 1], [2, 2], [3, 3]],
    budget: Share::Count(0),
    then: OnFailure::Revert,
    bake: false,
    gate: false,
    rounds: None,
    reach: 0,
    fault: None,
};

/// A moment of the run, as the ways to the hosts see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Moment {
    Asked(Place, &'static str, usize),
    Answered(Place, &'static str, usize),
    /// An instance failed, by its host and number.
    Failed(Place, u32),
    /// A host is lost, and no request was on its way.
    Gone(Place),
    /// A host is lost, and its request was not written.
    Unsent(Place, usize),
}

/// The way to a scripted host.
pub(super) struct ScriptedLink {
    name: HostName,
    place: Place,
    session: HostSession<Recorded>,
    fault: Option<(usize, Fault)>,
    requests: usize,
    is_lost: bool,
    /// The answer or request of a host that is there again, and the request that it was lost in.
    pending: Option<Pending>,
    lost_in: Option<(&'static str, usize)>,
    moments: Rc<RefCell<Vec<Moment>>>,
    /// The waves of the instances.
    waves: [usize; 2],
}

enum Pending {
    Answer(SessionAnswer),
    Request(SessionRequest),
}

/// A journal that a test reads.
#[derive(Debug, Default, Clone)]
pub(super) struct Recorded(pub(super) Rc<RefCell<Vec<Event>>>);

impl EventStore for Recorded {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        self.0.borrow_mut().push(event.clone());
        Ok(())
    }

    async fn keep_proofs(&self, _: Vec<ProvenInstance>, _: &Interrupts) {}
}

/// Returns the verb of a request, and its wave.
fn verb(request: &SessionRequest) -> (&'static str, usize) {
    match request {
        SessionRequest::Commit { wave, .. } => ("commit", *wave),
        SessionRequest::RollBack {
            scope: Scope::All,
            until,
            ..
        } => ("roll back all", *until),
        SessionRequest::RollBack { until, .. } => ("roll back", *until),
        SessionRequest::Recheck { until, .. } => ("recheck", *until),
        SessionRequest::FinalCheck { .. } => ("final check", 0),
        SessionRequest::Conclude { .. } => ("conclude", 0),
        SessionRequest::Describe { wave } => ("describe", *wave),
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Long enough to look at the hosts once before its end.
const BAKE: Duration = Duration::from_secs(8);

impl ScriptedLink {
    fn lose(&mut self, (verb, wave): (&'static str, usize)) -> Lost {
        self.is_lost = true;
        self.lost_in = Some((verb, wave));
        // A recheck and a rollback are of each wave so far.
        let is_due = |of: usize| of == wave || (verb != "commit" && of < wave);
        if ["commit", "recheck", "roll back"].contains(&verb) {
            let due = (0..).zip(self.waves).filter(|(_, of)| is_due(*of));
            let failed = due.map(|(number, _)| Moment::Failed(self.place, number));
            self.moments.borrow_mut().extend(failed);
        }
        Lost {
            why: format!("cut at request {}", self.requests),
            is_sent: true,
        }
    }

    /// Loses the host where no request is on its way.
    fn lose_idle(&mut self, moment: Moment) -> Lost {
        self.is_lost = true;
        self.moments.borrow_mut().push(moment);
        Lost {
            why: format!("gone before request {}", self.requests),
            is_sent: false,
        }
    }
}

impl HostLink for ScriptedLink {
    fn name(&self) -> &HostName {
        &self.name
    }

    fn note(&mut self, event: &Event) {
        self.session.note(event);
    }

    fn is_journaled(&self) -> bool {
        self.session.is_journaled()
    }

    async fn hear(&mut self, _: &mut dyn FnMut(&Event)) -> Result<(), Lost> {
        assert!(!self.is_lost, "a lost host is heard");
        if self.fault == Some((self.requests + 1, Fault::LostIdle)) {
            return Err(self.lose_idle(Moment::Gone(self.place)));
        }
        Ok(())
    }

    async fn returned(&mut self, emit: &mut dyn FnMut(&Event)) -> Option<Returned> {
        let answer = match self.pending.take()? {
            Pending::Answer(answer) => answer,
            Pending::Request(request) => {
                let (_sender, interrupts) = tokio::sync::watch::channel(0);
                let answer = self.session.request(request, &interrupts, emit).await;
                answer.ok()?
            }
        };
        self.is_lost = false;
        let mut moments = self.moments.borrow_mut();
        moments.retain(|moment| !matches!(moment, Moment::Failed(of, _) if *of == self.place));
        if let Some((verb, wave)) = self.lost_in {
            moments.push(Moment::Answered(self.place, verb, wave));
        }
        let answer = Some(answer);
        Some(Returned { answer })
    }

    async fn request(
        &mut self,
        request: SessionRequest,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<SessionAnswer, Lost> {
        assert!(!self.is_lost, "a lost host is asked");
        self.requests += 1;
        let what = verb(&request);
        if self.fault == Some((self.requests, Fault::LostUnsent)) {
            return Err(self.lose_idle(Moment::Unsent(self.place, what.1)));
        }
        let asked = Moment::Asked(self.place, what.0, what.1);
        self.moments.borrow_mut().push(asked);
        let fault = self.fault.filter(|(at, _)| *at == self.requests);
        let fault = fault.map(|(_, fault)| fault);
        match fault {
            Some(Fault::LostBefore) => return Err(self.lose(what)),
            Some(Fault::BackLater) => {
                self.pending = Some(Pending::Request(request));
                return Err(self.lose(what));
            }
            Some(Fault::Late) => tokio::time::sleep(MINUTE).await,
            _ => {}
        }
        let answer = self.session.request(request, interrupts, emit).await;
        match fault {
            Some(Fault::LostAfter) => return Err(self.lose(what)),
            Some(Fault::Back) => {
                self.pending = answer.ok().map(Pending::Answer);
                return Err(self.lose(what));
            }
            Some(Fault::Late) => tokio::time::sleep(MINUTE).await,
            _ => {}
        }
        let mut moments = self.moments.borrow_mut();
        if let Ok(answer) = &answer {
            let bad = answer.outcomes.iter().filter(|(o, _)| BAD.contains(o));
            let numbers = bad.flat_map(|(_, numbers)| &numbers.0);
            moments.extend(numbers.map(|n| Moment::Failed(self.place, *n)));
        }
        moments.push(Moment::Answered(self.place, what.0, what.1));
        answer
    }
}

/// A host at the end of a run.
#[derive(Debug)]
pub(super) struct HostRan {
    /// The instances as the coordinator knows them.
    pub(super) instances: Vec<Instance>,
    pub(super) lost: Option<String>,
    pub(super) script: ScriptHost,
    pub(super) journal: Vec<Event>,
}

/// How a run over hosts ended.
#[derive(Debug)]
pub(super) struct HostsRan {
    pub(super) case: HostsCase,
    pub(super) verdict: Result<Verdict, Verdict>,
    pub(super) hosts: Vec<HostRan>,
    /// Every event that the engine reported, with its host.
    pub(super) events: Vec<(HostName, Event)>,
    pub(super) moments: Vec<Moment>,
    /// The gates that ran: the wave of each, and the instances that it got.
    pub(super) gates: Vec<(usize, Vec<i32>)>,
}

/// Gates that end with 0.
struct PassedGates(Vec<(usize, Vec<i32>)>);

impl GateRunner for PassedGates {
    fn limit(&self) -> Duration {
        MINUTE
    }

    async fn run(
        &mut self,
        _: &[String],
        wave: usize,
        instances: &[Instance],
        _: &mut Interrupts,
    ) -> GateEnd {
        let pids = instances.iter().map(|i| i.pid).collect();
        self.0.push((wave, pids));
        GateEnd {
            exit: Some(0),
            output: String::new(),
        }
    }
}

pub(super) fn host_name(place: Place) -> HostName {
    HostName::new(&format!("edge-{place}")).unwrap()
}

/// Returns the pid of an instance.
pub(super) fn pid_of(place: Place, number: usize) -> i32 {
    i32::try_from(10 * place + number).unwrap()
}

impl HostsCase {
    fn host(self, place: Place, group: &Arc<Group>) -> (Plan, ScriptHost) {
        let mut waves: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
        let mut script = ScriptHost::default();
        script.files.insert("/c".into(), OLD.sha256.clone());
        for (number, wave) in self.waves[place].into_iter().enumerate() {
            let pid = pid_of(place, number);
            waves.entry(wave).or_default().push(pid);
            script.runs.insert(pid, OLD.sha256.clone());
        }
        let waves = waves.into_iter().map(|(number, pids)| {
            let mut step = ONE.step(group, &pids);
            for member in &mut step.instances {
                member.instance.wave = number;
            }
            Wave {
                number,
                steps: vec![step],
            }
        });
        let plan = Plan {
            waves: waves.collect(),
            ..empty()
        };
        (plan, script)
    }

    /// Runs it on hosts that `write` has changed.
    pub(super) fn run(self, write: impl Fn(Place, &mut ScriptHost)) -> HostsRan {
        let mut group = GROUP.clone();
        (group.rollout.max_failures, group.rollout.on_failure) = (self.budget, self.then);
        if self.bake {
            group.rollout.bake = BAKE;
        }
        if self.gate {
            group.rollout.gate = vec!["gate".into()];
        }
        let policy = GroupPolicy {
            name: group.name.clone(),
            rollout: group.rollout.clone(),
            rounds: self.rounds.iter().copied().collect(),
        };
        let group = Arc::new(group);
        let moments = Rc::new(RefCell::new(Vec::new()));
        let mut journals = Vec::new();
        let mut hosts = Vec::new();
        for place in 0..3 {
            let (plan, mut script) = self.host(place, &group);
            write(place, &mut script);
            let journal = Recorded::default();
            journals.push(journal.0.clone());
            let host = (plan, Host::Script(script));
            let (session, entries) = HostSession::scripted(host, journal, (false, false));
            let fault = self.fault.filter(|(of, _, _)| *of == place);
            let link = ScriptedLink {
                name: host_name(place),
                place,
                session,
                fault: fault.map(|(_, at, fault)| (at, fault)),
                requests: 0,
                is_lost: false,
                pending: None,
                lost_in: None,
                moments: moments.clone(),
                waves: self.waves[place],
            };
            hosts.push((link, entries));
        }
        let mut plan = FleetPlan::new(hosts, vec![policy]);
        let mut gates = PassedGates(Vec::new());
        let (verdict, events) = carry_out(&mut plan, self.reach, &mut gates);
        let hosts = plan.hosts.into_iter().zip(journals);
        let hosts = hosts.map(|(host, journal)| {
            let instances = host.instances().map(|(_, instance)| instance).collect();
            let Host::Script(script) = host.link.session.into_parts().1 else {
                unreachable!("it was a script")
            };
            HostRan {
                instances,
                lost: host.lost,
                script,
                journal: journal.take(),
            }
        });
        HostsRan {
            case: self,
            verdict,
            hosts: hosts.collect(),
            events,
            moments: moments.take(),
            gates: gates.0,
        }
    }
}

type Reported = Vec<(HostName, Event)>;

fn carry_out(
    plan: &mut FleetPlan<ScriptedLink>,
    reach: usize,
    gates: &mut PassedGates,
) -> (Result<Verdict, Verdict>, Reported) {
    let (_sender, mut interrupts) = tokio::sync::watch::channel(0);
    let options = EngineOptions {
        immediate: false,
        parallel: 3,
        reach: ReachBudget {
            max: Share::Count(reach),
            hosts: 3,
            unreachable: 0,
        },
    };
    let mut events = Vec::new();
    let ended = block_on(run(
        plan,
        options,
        &mut interrupts,
        gates,
        &mut |host: &HostName, event: &Event| events.push((host.clone(), event.clone())),
    ));
    let verdict = ended.map(|end| end.verdict).map_err(|abort| abort.verdict);
    (verdict, events)
}
