//! The fleet that a command works on: `fleet.toml`, or a kind without one.

use std::path::PathBuf;

use crate::fleet::{Fleet, FleetError};

/// The files that are looked for without `--fleet`, in this order.
const DEFAULT_FILES: [&str; 2] = ["fleet.toml", "/etc/hello/fleet.toml"];

/// The option that names the fleet file.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FleetArg {
    /// Read the fleet from this file.
    ///
    /// Without the option it is ./fleet.toml, else /etc/hello/fleet.toml.
    #[arg(
        help_heading = "Instances",
        long,
        value_name = "FILE",
        env = "HELLO_FLEET",
        hide_env_values = true
    )]
    pub(super) fleet: Option<PathBuf>,
}

/// Returns the file that is read where no option names one; none if there is no such file.
pub(super) fn usual_file() -> Option<PathBuf> {
    let named = std::env::var_os("HELLO_FLEET").filter(|path| !path.is_empty());
    named.map(PathBuf::from).or_else(default_file)
}

fn default_file() -> Option<PathBuf> {
    let exists = |path: &PathBuf| path.symlink_metadata().is_ok();
    DEFAULT_FILES.into_iter().map(PathBuf::from).find(exists)
}

impl FleetArg {
    /// Loads the fleet with its hosts.
    ///
    /// # Errors
    /// Fails if there is no fleet file, or if it is not valid.
    pub(super) fn load_with_hosts(self) -> Result<Fleet, FleetError> {
        Fleet::load(&self.path().ok_or(FleetError::NoHostFile)?)
    }

    /// Loads the fleet of this machine with `groups` of it, or every group; or a fleet with hosts,
    /// whose own files have the groups.
    ///
    /// # Errors
    /// Fails as [`FleetArg::load`] does.
    pub(super) fn load_of_any(self, groups: &[String]) -> Result<Fleet, FleetError> {
        if let Some(path) = self.clone().path() {
            let fleet = Fleet::load(&path)?;
            if fleet.hosts.is_some() {
                return Ok(fleet);
            }
        }
        self.load(groups, groups.is_empty())
    }

    /// Tells whether the file is there and has no content.
    pub(super) fn is_empty_file(&self) -> bool {
        let path = self.clone().path();
        path.and_then(|path| path.metadata().ok())
            .is_some_and(|meta| meta.is_file() && meta.len() == 0)
    }

    /// Returns the file: the one that is named, or the first of the default ones that exists.
    fn path(self) -> Option<PathBuf> {
        self.fleet.or_else(default_file)
    }

    /// Loads the fleet of a run: that of this machine with `groups` of it, or one with hosts, whose
    /// own files may have other groups. Of the groups of such a file those stay that are named.
    ///
    /// # Errors
    /// Fails as [`FleetArg::load`] does.
    pub(super) fn load_for_run(self, groups: &[String], every: bool) -> Result<Fleet, FleetError> {
        if let Some(path) = self.clone().path() {
            let mut fleet = Fleet::load(&path)?;
            if fleet.hosts.is_some() {
                if groups.is_empty() && fleet.groups.len() > 1 {
                    return fleet.select(groups, every);
                }
                let is_named = |name: &String| groups.is_empty() || groups.contains(name);
                fleet.groups.retain(|group| is_named(&group.name));
                return Ok(fleet);
            }
        }
        self.load(groups, every)
    }

    /// Loads the fleet of this machine and selects `groups` of it, or every group. Without a fleet
    /// file, one group may be the name of a kind.
    ///
    /// # Errors
    /// Fails if there is no fleet, the file is not valid or names hosts, or it has no such group.
    pub(super) fn load(self, groups: &[String], every: bool) -> Result<Fleet, FleetError> {
        match (self.path(), groups) {
            (Some(path), _) => Fleet::load(&path)?.of_this_machine()?.select(groups, every),
            (None, [kind]) => Fleet::of_kind(kind),
            (None, _) => Err(FleetError::Nowhere),
        }
    }
}
