//! A thread that the kernel tells less than root: a real check that cannot be made.

use rustix::process::{Uid, geteuid};

/// A process that only root may inspect.
pub(crate) const HIDDEN: i32 = 1;

/// An ordinary user.
const USER: u32 = 65534;

/// Runs `test` on a thread that may not inspect the processes of root. The kernel keeps the user of
/// each thread apart, so no other test notices.
pub(crate) fn unprivileged<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let run = || {
        if geteuid().is_root() {
            let user = Uid::from_raw(USER);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        }
        let read = std::fs::read_dir(format!("/proc/{HIDDEN}/fd")).map(drop);
        let kind = read.unwrap_err().kind();
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
        test()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
