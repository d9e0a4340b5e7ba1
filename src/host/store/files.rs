//! The files of a store's credentials, and where systemd puts them.

use std::path::{Path, PathBuf};

use super::error::{Fault, Outcome};
use crate::{
    assertion::{Access, HttpRequest},
    fleet::{CREDENTIALS, Origin, StoreAccess},
};

/// Returns the files of a store as those of a request to `origin`.
pub(super) fn request(access: &StoreAccess, origin: &Origin) -> Outcome<HttpRequest> {
    let at = |path: &Option<PathBuf>| path.as_deref().map(resolved).transpose();
    Ok(HttpRequest {
        host: Some(origin.host.clone()),
        ca: at(&access.ca)?,
        access: Access {
            auth_file: at(&access.files.auth_file)?,
            bearer_file: at(&access.files.bearer_file)?,
            client_cert: at(&access.files.client_cert)?,
            client_key: at(&access.files.client_key)?,
        },
        ..HttpRequest::default()
    })
}

/// Returns the path of a file; a systemd credential lies in the directory of its service.
fn resolved(path: &Path) -> Outcome<PathBuf> {
    let Ok(name) = path.strip_prefix(CREDENTIALS) else {
        return Ok(path.to_owned());
    };
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) if !directory.is_empty() => Ok(PathBuf::from(directory).join(name)),
        _ => Err(Fault::NoCredentials(path.display().to_string()).into()),
    }
}
