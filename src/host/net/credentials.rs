//! The files of credentials and of trusted certificates. They are read for each request, since they
//! may be rotated. Their content stays in the request; no error repeats any of it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::HeaderValue;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    assertion::{Access, HttpRequest},
    config::{self, ReadError},
    screen::quote,
    trust::{Distrust, ResolvedPath},
};

/// The longest file of credentials, in bytes: the authorities of a whole system are about 220 KiB.
const MAX_FILE: u64 = 1 << 20;

/// Why a file of credentials cannot be used, with its key in `fleet.toml` and its path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("{key} `{}`: {why}", .path.display())]
    Unreadable {
        key: &'static str,
        path: PathBuf,
        why: ReadError,
    },
    #[error("{key} `{}` does not count: {why}", .path.display())]
    Untrusted {
        key: &'static str,
        path: PathBuf,
        why: Distrust,
    },
    #[error("{key} `{}` can be read by every user", .path.display())]
    Public { key: &'static str, path: PathBuf },
    #[error("{key} `{}` does not hold {wanted}", .path.display())]
    Other {
        key: &'static str,
        path: PathBuf,
        wanted: &'static str,
    },
}

impl CredentialError {
    /// Returns the command that makes the file usable, if one command can.
    pub(crate) fn hint(&self) -> Option<String> {
        let command = match self {
            Self::Untrusted { why, .. } => why.fix_command()?,
            Self::Public { path, .. } => format!("chmod o-r {}", quote(path)),
            Self::Unreadable { .. } | Self::Other { .. } => return None,
        };
        Some(format!("run `{command}`"))
    }
}

/// The credentials of one request, and the certificates that it trusts.
#[derive(Default)]
pub(crate) struct Credentials {
    /// The value of `Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
    /// Texts that no message may repeat, the longest first.
    pub(crate) secrets: Arc<[String]>,
    /// The certificates that are trusted instead of the system's.
    pub(crate) ca: Option<Vec<CertificateDer<'static>>>,
    /// The certificates of this client, and the private key of the first.
    pub(crate) client: Option<Client>,
}

/// The certificates of this client, and the private key of the first.
type Client = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The users that may be able to read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// Every user.
    Any,
    /// Not every user.
    NotEvery,
}

/// A key of `fleet.toml` and the path that it names.
struct CredentialFile<'a> {
    key: &'static str,
    path: &'a Path,
}

impl CredentialFile<'_> {
    /// Reads the file, which only root and the caller may be able to write.
    fn read(&self, readers: Readers) -> Result<Vec<u8>, CredentialError> {
        let key = self.key;
        let path = || self.path.to_owned();
        let unreadable = |why: ReadError| CredentialError::Unreadable {
            key,
            path: path(),
            why,
        };
        let of_system = |e: io::Error| unreadable(e.into());
        let resolved = ResolvedPath::of(self.path).map_err(of_system)?;
        resolved
            .is_trusted()
            .map_err(|why| CredentialError::Untrusted {
                key,
                path: path(),
                why,
            })?;
        if readers == Readers::NotEvery && resolved.stat().st_mode & 0o004 != 0 {
            return Err(CredentialError::Public { key, path: path() });
        }
        config::read_fd(resolved.open().map_err(of_system)?, MAX_FILE).map_err(unreadable)
    }

    /// Returns the error of a file with another content than `wanted`.
    fn other(&self, wanted: &'static str) -> CredentialError {
        CredentialError::Other {
            key: self.key,
            path: self.path.to_owned(),
            wanted,
        }
    }

    /// Reads certificates in PEM, at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
        let bytes = self.read(Readers::Any)?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .unwrap_or_default();
        if certificates.is_empty() {
            Err(self.other("certificates in PEM"))
        } else {
            Ok(certificates)
        }
    }

    /// Reads the only line of the file, as the value of a header.
    fn header(
        &self,
        wanted: &'static str,
        value: impl FnOnce(&[u8]) -> Option<String>,
    ) -> Result<HeaderValue, CredentialError> {
        let bytes = self.read(Readers::NotEvery)?;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let value = Some(line)
            .filter(|line| !line.iter().any(u8::is_ascii_control))
            .and_then(value);
        let mut header = value
            .and_then(|value| HeaderValue::from_str(&value).ok())
            .ok_or_else(|| self.other(wanted))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl Credentials {
    /// Reads every file that the request names.
    ///
    /// # Errors
    /// Fails if a file cannot be read, holds something else, or can be written by another user.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, CredentialError> {
        let authorization = authorization(&request.access)?;
        let ca = request
            .ca
            .as_deref()
            .filter(|_| !request.insecure)
            .map(|path| CredentialFile { key: "ca", path }.certificates())
            .transpose()?;
        let client = client(&request.access)?;
        let secrets = authorization
            .as_ref()
            .map(secrets)
            .unwrap_or_default()
            .into();
        Ok(Self {
            authorization,
            secrets,
            ca,
            client,
        })
    }
}

impl Credentials {
    /// Returns the user and the password; none without Basic authentication.
    pub(crate) fn user(&self) -> Option<(String, String)> {
        let header = self.authorization.as_ref()?.as_bytes();
        let line = BASE64_STANDARD
            .decode(header.strip_prefix(b"Basic ")?)
            .ok()?;
        let line = String::from_utf8(line).ok()?;
        let (user, password) = line.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }

    /// Returns the token without its scheme; none without Bearer authentication.
    pub(crate) fn token(&self) -> Option<HeaderValue> {
        let header = self.authorization.as_ref()?.as_bytes();
        let mut token = HeaderValue::from_bytes(header.strip_prefix(b"Bearer ")?).ok()?;
        token.set_sensitive(true);
        Some(token)
    }
}

/// Returns the value of `Authorization`.
fn authorization(access: &Access) -> Result<Option<HeaderValue>, CredentialError> {
    let basic = |line: &[u8]| {
        line.contains(&b':')
            .then(|| format!("Basic {}", BASE64_STANDARD.encode(line)))
    };
    let bearer = |line: &[u8]| {
        let token = std::str::from_utf8(line)
            .ok()
            .filter(|token| is_token(token))?;
        Some(format!("Bearer {token}"))
    };
    match (&access.auth_file, &access.bearer_file) {
        (Some(path), _) => CredentialFile {
            key: "auth_file",
            path,
        }
        .header("one line of USER:PASSWORD", basic)
        .map(Some),
        (None, Some(path)) => CredentialFile {
            key: "bearer_file",
            path,
        }
        .header("one line with a token", bearer)
        .map(Some),
        (None, None) => Ok(None),
    }
}

/// Returns the certificates of this client and their private key.
fn client(access: &Access) -> Result<Option<Client>, CredentialError> {
    let (Some(certificates), Some(key)) = (&access.client_cert, &access.client_key) else {
        return Ok(None);
    };
    let key = CredentialFile {
        key: "client_key",
        path: key,
    };
    let certificates = CredentialFile {
        key: "client_cert",
        path: certificates,
    };
    let private = PrivateKeyDer::from_pem_slice(&key.read(Readers::NotEvery)?)
        .map_err(|_| key.other("a private key in PEM"))?;
    Ok(Some((certificates.certificates()?, private)))
}

/// Returns the secrets in a header `Authorization`: its value, and the password in that.
fn secrets(header: &HeaderValue) -> Vec<String> {
    let text = String::from_utf8_lossy(header.as_bytes()).into_owned();
    let Some((scheme, value)) = text.split_once(' ') else {
        return vec![text];
    };
    let mut secrets = vec![value.to_owned()];
    if scheme == "Basic"
        && let Some(line) = BASE64_STANDARD
            .decode(value)
            .ok()
            .and_then(|line| String::from_utf8(line).ok())
    {
        secrets.extend(
            line.split_once(':')
                .map(|(_, password)| password.to_owned()),
        );
    }
    // A shorter text is part of too many others to be masked.
    secrets.retain(|text| text.len() >= 4);
    secrets
}

/// Tells whether a text is a token (RFC 6750).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(dir: &Path, bytes: &[u8], mode: u32, key: &str) -> Result<String, String> {
        let path = dir.join("file");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let access = match key {
            "auth_file" => Access {
                auth_file: Some(path),
                ..Access::default()
            },
            "bearer_file" => Access {
                bearer_file: Some(path),
                ..Access::default()
            },
            _ => Access {
                client_cert: Some(path.clone()),
                client_key: Some(path),
                ..Access::default()
            },
        };
        let credentials = Credentials::of(&HttpRequest {
            access,
            ..HttpRequest::default()
        })
        .map_err(|e| format!("{e}; {}", e.hint().unwrap_or_default()))?;
        Ok(credentials
            .authorization
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned())
    }

    #[test]
    fn the_secrets_of_a_header_are_known() {
        let secrets = |text: &str| secrets(&HeaderValue::from_str(text).unwrap());
        assert_eq!(secrets("Basic b3BzOnRlOnN0"), ["b3BzOnRlOnN0", "te:st"]);
        assert_eq!(secrets("Bearer abc.def-1"), ["abc.def-1"]);
    }

    #[test]
    fn a_store_gets_the_parts_of_a_header() {
        let of = |text: &str| Credentials {
            authorization: HeaderValue::from_str(text).ok(),
            ..Credentials::default()
        };
        let basic = of("Basic b3BzOnRlOnN0");
        assert_eq!(basic.user(), Some(("ops".into(), "te:st".into())));
        assert_eq!(basic.token(), None);
        let bearer = of("Bearer abc.def-1");
        assert_eq!(bearer.user(), None);
        assert_eq!(bearer.token().unwrap(), "abc.def-1");
    }

    #[test]
    fn a_file_of_credentials_becomes_a_header_and_is_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let header = |bytes: &[u8], mode, key| read(dir.path(), bytes, mode, key);
        assert_eq!(
            header(b"ops:te:st\n", 0o600, "auth_file").unwrap(),
            "Basic b3BzOnRlOnN0"
        );
        assert_eq!(
            header("ü:x\r\n".as_bytes(), 0o440, "auth_file").unwrap(),
            "Basic w7w6eA=="
        );
        assert_eq!(
            header(b"abc.def-1\n", 0o600, "bearer_file").unwrap(),
            "Bearer abc.def-1"
        );
        for (bytes, mode, key, expected) in [
            (&b"geheim"[..], 0o600, "auth_file", "USER:PASSWORD"),
            (b"a:geheim\nb:geheim\n", 0o600, "auth_file", "one line"),
            (b"", 0o600, "bearer_file", "a token"),
            (b"two geheim", 0o600, "bearer_file", "a token"),
            (b"a:geheim", 0o604, "auth_file", "chmod o-r"),
            (b"geheim", 0o644, "bearer_file", "chmod o-r"),
            (b"a:geheim", 0o620, "auth_file", "chmod go-w"),
            (b"geheim", 0o600, "client_key", "private key"),
        ] {
            let error = header(bytes, mode, key).unwrap_err();
            assert!(
                error.contains(expected) && error.contains(key) && !error.contains("geheim"),
                "{key}: {error}"
            );
        }
    }
}
