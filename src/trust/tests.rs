#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says so by failing, and why it is skipped"
)]
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use super::*;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn it_ends_where_the_kernel_ends() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(dir.join("a/b")).unwrap();
    std::fs::write(dir.join("a/b/file"), "").unwrap();
    symlink("a/b", dir.join("relative")).unwrap();
    symlink(dir.join("a"), dir.join("absolute")).unwrap();
    symlink("../relative/file", dir.join("a/up")).unwrap();
    symlink("round", dir.join("round")).unwrap();
    for named in [
        "a/b/file",
        "relative/file",
        "absolute/b/../up",
        "a/./b//file",
        "absolute/b/",
        "relative",
    ] {
        let named = dir.join(named);
        assert_eq!(
            ResolvedPath::of(&named).unwrap().end,
            named.canonicalize().unwrap(),
            "{}",
            named.display()
        );
    }
    for named in ["none", "a/b/file/more", "round", "a/b/file/"] {
        assert!(ResolvedPath::of(&dir.join(named)).is_err(), "{named}");
    }
    assert_eq!(
        ResolvedPath::of(Path::new("/..")).unwrap().end,
        Path::new("/")
    );
    let (way, missing) = ResolvedPath::until(&dir.join("absolute/b/x/y")).unwrap();
    assert_eq!(
        (way.end, missing),
        (dir.join("a/b"), vec!["x".into(), "y".into()])
    );
    assert!(ResolvedPath::until(&dir.join("x/../a")).is_err());
}

#[test]
fn what_is_opened_is_what_was_judged() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "judged").unwrap();
    let way = ResolvedPath::of(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    symlink("/etc/passwd", &file).unwrap();
    let text = io::read_to_string(std::fs::File::from(way.open().unwrap())).unwrap();
    assert_eq!(text, "judged");
}

#[test]
fn a_descriptor_that_was_handed_down_is_a_path_too() {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, b"handed").unwrap();
    let fd = open_named(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).unwrap();
    assert_eq!(
        io::read_to_string(std::fs::File::from(fd)).unwrap(),
        "handed"
    );
}

#[test]
fn a_link_counts_where_only_root_and_the_caller_could_put_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (real, link) = (dir.join("real"), dir.join("open/link"));
    for name in ["real", "open"] {
        std::fs::create_dir(dir.join(name)).unwrap();
        mode(&dir.join(name), 0o755);
    }
    symlink(&real, &link).unwrap();
    let says = |path: &Path| {
        ResolvedPath::of(path)
            .unwrap()
            .is_ours()
            .map_err(|why| why.place().to_owned())
    };
    assert_eq!(says(&link), Ok(()));
    // In a sticky directory one's own link counts, and another user's does not.
    mode(&dir.join("open"), 0o1777);
    assert_eq!(says(&link), Ok(()));
    lchown(&link, Some(65534), None).unwrap();
    assert_eq!(says(&link), Err(link.clone()));
    assert!(ResolvedPath::of(&link).unwrap().is_straight().is_err());
    lchown(&link, Some(0), None).unwrap();
    // Where others can write, none does; nor where the directory is another user's.
    mode(&dir.join("open"), 0o777);
    assert_eq!(says(&link), Err(link.clone()));
    mode(&dir.join("open"), 0o755);
    chown(dir.join("open"), Some(65534), None).unwrap();
    assert_eq!(says(&link), Err(link.clone()));
    // Also where the way turns back out of it.
    assert_eq!(says(&dir.join("open/../real")), Ok(()));
    chown(&real, Some(65534), None).unwrap();
    assert_eq!(says(&real), Err(real.clone()));
}
