#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says so by failing, and why it is skipped"
)]
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use super::*;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_path_resolves_as_the_kernel_resolves_it() {
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
    let (resolved, missing) = ResolvedPath::until(&dir.join("absolute/b/x/y")).unwrap();
    assert_eq!(
        (resolved.end, missing),
        (dir.join("a/b"), vec!["x".into(), "y".into()])
    );
    assert!(ResolvedPath::until(&dir.join("x/../a")).is_err());
}

#[test]
fn the_checked_file_is_opened_though_its_name_is_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "checked").unwrap();
    let resolved = ResolvedPath::of(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    symlink("/etc/passwd", &file).unwrap();
    let text = io::read_to_string(std::fs::File::from(resolved.open().unwrap())).unwrap();
    assert_eq!(text, "checked");
}

#[test]
fn an_inherited_descriptor_is_a_path_too() {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, b"inherited").unwrap();
    let fd = open_named(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).unwrap();
    assert_eq!(
        io::read_to_string(std::fs::File::from(fd)).unwrap(),
        "inherited"
    );
}

#[test]
fn a_link_is_trusted_if_only_root_and_the_caller_could_create_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (real, link) = (dir.join("real"), dir.join("open/link"));
    for name in ["real", "open"] {
        std::fs::create_dir(dir.join(name)).unwrap();
        set_mode(&dir.join(name), 0o755);
    }
    symlink(&real, &link).unwrap();
    let check = |path: &Path| {
        ResolvedPath::of(path)
            .unwrap()
            .writable_only_by_us()
            .map_err(|why| why.path().to_owned())
    };
    assert_eq!(check(&link), Ok(()));
    // In a sticky directory the caller's link is trusted, and another user's is not.
    set_mode(&dir.join("open"), 0o1777);
    assert_eq!(check(&link), Ok(()));
    lchown(&link, Some(65534), None).unwrap();
    assert_eq!(check(&link), Err(link.clone()));
    assert!(ResolvedPath::of(&link).unwrap().links_trusted().is_err());
    lchown(&link, Some(0), None).unwrap();
    // No link is trusted in a directory that others can write, or that another user owns.
    set_mode(&dir.join("open"), 0o777);
    assert_eq!(check(&link), Err(link.clone()));
    set_mode(&dir.join("open"), 0o755);
    chown(dir.join("open"), Some(65534), None).unwrap();
    assert_eq!(check(&link), Err(link.clone()));
    // A path through `..` does not depend on the link.
    assert_eq!(check(&dir.join("open/../real")), Ok(()));
    chown(&real, Some(65534), None).unwrap();
    assert_eq!(check(&real), Err(real.clone()));
}
