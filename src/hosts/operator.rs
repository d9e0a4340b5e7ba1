//! The operator, as this coordinator claims towards agents.

use crate::{inventory::HostName, protocol::Operator, runs};

/// Returns the name of this machine, where it is one that a host can have.
pub(crate) fn this_machine() -> Option<HostName> {
    HostName::new(&rustix::system::uname().nodename().to_string_lossy()).ok()
}

/// Returns the operator of this process.
pub(crate) fn claimed_operator() -> Operator {
    let own = runs::Operator::now();
    Operator {
        uid: own.uid,
        login_uid: own.login_uid,
        sudo_user: own.sudo_user,
        ci_job: own.ci_job,
        host: Some(
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        ),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
