#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

fn stat(uid: u32, gid: u32, mode: u32) -> Stat {
    let mut stat = fs::stat("/").unwrap();
    (stat.st_uid, stat.st_gid, stat.st_mode) = (uid, gid, mode);
    stat
}

#[test]
fn a_mode_permits_the_group_or_the_others() {
    let groups = BTreeSet::from([7, 8]);
    for (gid, mode, may) in [
        (7, 0o775, true),
        (7, 0o757, false),
        (9, 0o757, true),
        (9, 0o775, false),
    ] {
        assert_eq!(
            permitted(&stat(1, gid, mode), None, 5, &groups, WRITE),
            may,
            "{gid} {mode:o}"
        );
    }
}

#[test]
fn a_list_permits_by_its_mask() {
    let entry = |tag: u16, bits: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &bits.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let list = |user: u16, group: u16, mask: u16, other: u16| {
        [
            2u32.to_le_bytes().to_vec(),
            entry(1, 7, 0),
            entry(2, user, 5),
            entry(4, 5, 0),
            entry(8, group, 8),
            entry(16, mask, 0),
            entry(32, other, 0),
        ]
        .concat()
    };
    let groups = BTreeSet::from([8]);
    for (uid, acl, may) in [
        (5, list(7, 0, 7, 0), true),
        (5, list(7, 0, 5, 7), false),
        (6, list(0, 7, 7, 0), true),
        (6, list(0, 5, 7, 7), false),
        (6, list(7, 7, 5, 7), false),
    ] {
        assert_eq!(
            permitted(&stat(1, 1, 0o775), Some(&acl), uid, &groups, WRITE),
            may,
            "{uid}"
        );
    }
    assert!(permitted(
        &stat(1, 1, 0o775),
        Some(&list(0, 0, 7, 2)),
        6,
        &BTreeSet::from([3]),
        WRITE
    ));
}

#[test]
fn a_process_that_has_ended_holds_nothing() {
    let dir: OwnedFd = std::fs::File::open("/").unwrap().into();
    let me = i32::try_from(std::process::id()).unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let ended = i32::try_from(child.id()).unwrap();
    child.wait().unwrap();
    assert_eq!(living(&BTreeSet::from([Pid(ended)]), &dir, &[]).len(), 0);
    assert_eq!(
        living(&BTreeSet::from([Pid(ended), Pid(me)]), &dir, &[]).len(),
        1
    );
}

#[test]
fn the_inode_of_a_line_is_found() {
    assert_eq!(
        locked("lock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF"),
        Some(11691)
    );
    assert_eq!(
        locked("lock:\t1: POSIX  ADVISORY  WRITE 359 00:13:11691 0 EOF"),
        None
    );
    assert_eq!(locked("pos:\t0"), None);
}

#[test]
fn a_descriptor_that_cannot_be_read_may_hold_the_lock() {
    let mut scan = HolderScan::default();
    let failed = |errno: Errno| std::iter::once(Err(errno.into()));
    assert!(!scan.add(Pid(1), failed(Errno::MFILE)));
    assert!(
        scan.add(Pid(1), failed(Errno::NOENT)),
        "a closed one holds none"
    );
}
