//! The waves that a coordinator gives to the instances of this host.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    event::{Abort, Verdict},
    plan::{Plan, Wave},
    step::Step,
};

/// The numbers of the instances of each wave.
pub(crate) type Waves = [(u16, Vec<u32>)];

/// Puts each instance of a plan in its wave. Returns the plan, and the number of each instance in
/// the order of the waves.
///
/// # Errors
/// Fails if an instance is in no wave or in several, or if a number names no instance.
pub(super) fn arrange(plan: Plan, waves: &Waves) -> Result<(Plan, Vec<u32>), Abort> {
    let count = plan.steps().map(|step| step.instances.len()).sum();
    let of_number = wave_of_number(waves, count)?;
    let mut arranged: BTreeMap<u16, (Vec<Step>, Vec<u32>)> = BTreeMap::new();
    let mut number = 0_u32;
    for step in plan.waves.into_iter().flat_map(|wave| wave.steps) {
        let Step {
            changes,
            instances,
            direction,
        } = step;
        // A target that no instance reads belongs to the first wave.
        let is_unread = instances.is_empty();
        let mut parts: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for mut instance in instances {
            let wave = of_number.get(&number).copied().unwrap_or(1);
            instance.instance.wave = usize::from(wave);
            parts.entry(wave).or_default().push(instance);
            arranged.entry(wave).or_default().1.push(number);
            number += 1;
        }
        if is_unread {
            parts.insert(1, Vec::new());
        }
        for (wave, instances) in parts {
            arranged.entry(wave).or_default().0.push(Step {
                changes: changes.clone(),
                instances,
                direction,
            });
        }
    }
    let mut numbers = Vec::with_capacity(count);
    let mut waves = Vec::new();
    for (number, (steps, of_wave)) in arranged {
        numbers.extend(of_wave);
        waves.push(Wave {
            number: usize::from(number),
            steps,
        });
    }
    Ok((Plan { waves, ..plan }, numbers))
}

/// Returns the wave of each number.
fn wave_of_number(waves: &Waves, count: usize) -> Result<BTreeMap<u32, u16>, Abort> {
    let mut of_number = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (wave, numbers) in waves {
        let is_new = known.insert(*wave) && *wave > 0;
        for number in numbers {
            let is_first = of_number.insert(*number, *wave).is_none();
            let names_one = usize::try_from(*number).is_ok_and(|number| number < count);
            if !(is_new && is_first && names_one) {
                return Err(refused());
            }
        }
    }
    if of_number.len() == count {
        Ok(of_number)
    } else {
        Err(refused())
    }
}

fn refused() -> Abort {
    Abort::new(
        Verdict::Failed,
        "the waves of the run do not have each instance of this host once",
    )
}

#[cfg(test)]
mod tests;
