//! The user of a process. Masters such as squid and proftpd change their users by themselves, so
//! that real, effective and saved user differ.

use std::collections::BTreeSet;

use nix::unistd::{Uid, User, geteuid};

use super::{
    inspect::{Inspected, Origin},
    reason::{NotMeant, Users},
};
use crate::{fleet::Group, identity::Credentials, refusal::Refusal};

/// Returns the user of a process; of several, the one that is trusted least.
pub(super) fn of(person: &Credentials) -> u32 {
    let [real, effective, saved] = person.uids;
    [effective, real, saved]
        .into_iter()
        .find(|uid| !is_trusted(*uid))
        .unwrap_or(effective)
}

/// Returns why a match is not one of the processes of `uids`, the users of `group`; none if it is.
pub(super) fn not_meant(
    process: &Inspected,
    uids: &[u32],
    group: &Group,
) -> Option<Refusal<NotMeant>> {
    let person = &process.identity.person;
    let name = || group.name.clone();
    if !person.is_setuid() {
        let uid = process.uid;
        return (!uids.contains(&uid)).then(|| {
            let group_name = name();
            if group.users.is_empty() {
                NotMeant::NotCallers(uid, group_name).into()
            } else {
                NotMeant::NotUsers(uid, group_name).into()
            }
        });
    }
    let users = Users::of(person);
    if process.origin == Origin::Executable {
        return Some(NotMeant::Setuid(users, name()).into());
    }
    let all: BTreeSet<u32> = person.uids.into();
    let foreign: Vec<u32> = all
        .iter()
        .copied()
        .filter(|uid| !is_trusted(*uid))
        .collect();
    if foreign.len() > 1 {
        return Some(NotMeant::Several(users).into());
    }
    let [real, effective, _] = person.uids;
    let is_theirs = uids.contains(&real) || uids.contains(&effective);
    if is_theirs && all.iter().all(|uid| uids.contains(uid) || is_trusted(*uid)) {
        return None;
    }
    let missing = foreign
        .iter()
        .copied()
        .find(|uid| !uids.contains(uid))
        .unwrap_or(effective);
    let refusal = Refusal::from(NotMeant::NotBoth(users, name()));
    Some(refusal.with_hint(format!("say {} in the group", line(group, missing))))
}

/// Tells whether a file of this user decides nothing for another user: it is root or the caller.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// The line of `fleet.toml` that names `missing` too.
fn line(group: &Group, missing: u32) -> String {
    let own = "{self}".to_owned();
    let mut users = if group.users.is_empty() {
        vec![own]
    } else {
        group.users.clone()
    };
    users.push(user_name(missing));
    let users: Vec<String> = users.iter().map(|user| format!("{user:?}")).collect();
    format!("`user = [{}]`", users.join(", "))
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::{fleet::Fleet, host::discover::inspect::inspect};

    fn one(uids: [u32; 3], origin: Origin) -> Inspected {
        let mut one = inspect(i32::try_from(std::process::id()).unwrap()).unwrap();
        one.identity.person = Credentials {
            uids,
            ..Credentials::default()
        }
        .into();
        (one.uid, one.origin) = (uids[1], origin);
        one
    }

    #[test]
    fn a_group_matches_a_process_by_all_of_its_users() {
        let me = geteuid().as_raw();
        let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
        group.users = vec!["{self}".into(), "4001".into()];
        let reason = |uids, known: &[u32]| not_meant(&one(uids, Origin::Itself), known, &group);
        for uids in [
            [4001, me, me],
            [me, 4001, me],
            [me, 4001, 4001],
            [4001, 4001, me],
            [4001; 3],
            [me; 3],
        ] {
            assert_eq!(reason(uids, &[me, 4001]), None, "{uids:?}");
        }
        for uids in [[4001, me, me], [me, 4001, me], [me, 4001, 4001]] {
            let Refusal { why, hint } = reason(uids, &[me]).unwrap();
            assert!(matches!(why, NotMeant::NotBoth(..)), "{why}");
            assert!(hint.unwrap().contains("\"4001\""));
        }
        let unknown = reason([4002, me, me], &[me, 4001]).unwrap();
        assert!(unknown.hint.unwrap().contains("\"4002\""));
        let several = reason([4001, 4002, me], &[me, 4001, 4002]).unwrap();
        assert!(matches!(several.why, NotMeant::Several(_)), "{several}");
        assert!(reason([me; 3], &[4001]).is_some() && reason([4001; 3], &[me]).is_some());
        let by_its_file = not_meant(
            &one([4001, me, me], Origin::Executable),
            &[me, 4001],
            &group,
        );
        let by_its_file = by_its_file.unwrap().why;
        assert!(matches!(by_its_file, NotMeant::Setuid(..)), "{by_its_file}");
    }

    #[test]
    fn it_belongs_to_the_user_that_is_trusted_least() {
        let me = geteuid().as_raw();
        for (uids, uid) in [
            ([4001, me, me], 4001),
            ([me, 4001, me], 4001),
            ([me, me, 4001], 4001),
            ([me; 3], me),
        ] {
            assert_eq!(
                of(&Credentials {
                    uids,
                    ..Credentials::default()
                }),
                uid,
                "{uids:?}"
            );
        }
    }
}
