//! The second verb: everything that can be known before anything live is touched.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    event::{Event, Halts, Stop},
    host::{
        LocalHost,
        judge::{Candidate, Judge},
        survey::from_install,
    },
    step::{Shift, Step},
};

impl LocalHost {
    pub(super) async fn prepare(&mut self, steps: &mut [&mut Step], strict: bool, halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<(), Stop> {
        let mut staged: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let shifts: Vec<Shift> = steps.iter().flat_map(|s| s.shifts.clone()).collect();
        for shift in &shifts {
            if !staged.contains_key(&shift.path) {
                staged.insert(shift.path.clone(), self.stage(shift, tell)?);
            }
        }
        let mut judge = Judge::new(strict);
        for step in steps {
            let of = |s: &Shift| {
                let staged = staged.get(&s.path).unwrap_or(&s.path).clone();
                Candidate { live: s.path.clone(), staged, sha256: s.to.sha256.clone(), secret: s.secret }
            };
            let candidates: Vec<Candidate> = step.shifts.iter().map(of).collect();
            for member in &mut step.members {
                member.instance.validated = judge.passes(member, &candidates, halts, tell).await?;
            }
        }
        Ok(())
    }

    /// Stages what becomes of a target, and takes the place on the disk for its way back.
    fn stage(&mut self, shift: &Shift, tell: &mut impl FnMut(Event)) -> Result<PathBuf, Stop> {
        let run = self.run.clone();
        let Some(held) = self.targets.get_mut(&shift.path) else { return Ok(shift.path.clone()) };
        let adopted = held.target.digest().as_ref() == Some(&shift.to.sha256);
        let staged = if adopted { Ok(shift.path.clone()) } else { held.target.stage(&shift.to.bytes, &run) };
        let staged = staged.map_err(from_install)?;
        match &shift.from {
            Some(from) => held.target.reserve(&from.bytes).map_err(from_install)?,
            None => tell(Event::NoWayBack { path: shift.path.clone() }),
        }
        Ok(staged)
    }
}
