//! Reads the files whose content a request shows or trusts, each time anew: they may be rotated.
//! Their content stays in the request; no error repeats any of it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::HeaderValue;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    config::{self, ReadError},
    fact::HttpRequest,
    trust::{Distrust, ResolvedPath},
};

/// Longest file of credentials, in bytes: the authorities of a whole system are about 220 KiB.
const MAX: u64 = 1 << 20;

/// Why a file of credentials cannot be used; each names the key of `fleet.toml` and the path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("{key} `{}`: {why}", .path.display())]
    Unreadable {
        key: &'static str,
        path: PathBuf,
        why: String,
    },
    #[error("{key} `{}` does not count: {why}{}", .path.display(), mend(why))]
    Untrusted {
        key: &'static str,
        path: PathBuf,
        why: Distrust,
    },
    #[error("{key} `{}` can be read by every user; run `chmod o-r \
             {}`", .path.display(), .path.display())]
    Public { key: &'static str, path: PathBuf },
    #[error("{key} `{}` does not hold {wanted}", .path.display())]
    Other {
        key: &'static str,
        path: PathBuf,
        wanted: &'static str,
    },
}

fn mend(why: &Distrust) -> String {
    why.mend()
        .map_or(String::new(), |mend| format!("; run `{mend}`"))
}

/// What one request shows, and what it trusts.
#[derive(Default)]
pub(crate) struct Credentials {
    /// The value of `Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
    /// Texts that no message repeats, the longest first.
    pub(crate) secrets: Arc<[String]>,
    /// Certificates that are trusted instead of the system's.
    pub(crate) ca: Option<Vec<CertificateDer<'static>>>,
    /// Certificates of this client and the private key of the first.
    pub(crate) client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// Which users may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    Any,
    NotEvery,
}

/// A key of `fleet.toml` with its path.
struct Named<'a> {
    key: &'static str,
    path: &'a Path,
}

impl Named<'_> {
    /// The bytes of the file, which only root and the caller may decide about.
    fn read(&self, readers: Readers) -> Result<Vec<u8>, CredentialError> {
        let (key, path) = (self.key, || self.path.to_owned());
        let unreadable = |e: io::Error| CredentialError::Unreadable {
            key,
            path: path(),
            why: e.to_string(),
        };
        let way = ResolvedPath::of(self.path).map_err(unreadable)?;
        way.counts().map_err(|why| CredentialError::Untrusted {
            key,
            path: path(),
            why,
        })?;
        if readers == Readers::NotEvery && way.stat().st_mode & 0o004 != 0 {
            return Err(CredentialError::Public { key, path: path() });
        }
        config::read_fd(way.open().map_err(unreadable)?, MAX).map_err(|e| match e {
            ReadError::Io(e) => unreadable(e),
            ReadError::Unacceptable(why) => CredentialError::Unreadable {
                key,
                path: path(),
                why,
            },
        })
    }

    fn other(&self, wanted: &'static str) -> CredentialError {
        CredentialError::Other {
            key: self.key,
            path: self.path.to_owned(),
            wanted,
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
        let bytes = self.read(Readers::Any)?;
        let all: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .unwrap_or_default();
        if all.is_empty() {
            Err(self.other("certificates in PEM"))
        } else {
            Ok(all)
        }
    }

    /// The only line, as what a header may hold.
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
    /// Fails if one cannot be read, holds something else, or another user could decide about it.
    pub(crate) fn of(ask: &HttpRequest) -> Result<Self, CredentialError> {
        let named = |key, path| Named { key, path };
        let access = &ask.access;
        let authorization = match (&access.auth_file, &access.bearer_file) {
            (Some(path), _) => {
                let basic = |line: &[u8]| {
                    line.contains(&b':')
                        .then(|| format!("Basic {}", BASE64_STANDARD.encode(line)))
                };
                Some(named("auth_file", path).header("one line of USER:PASSWORD", basic)?)
            }
            (None, Some(path)) => {
                let bearer = |line: &[u8]| {
                    Some(format!(
                        "Bearer {}",
                        std::str::from_utf8(line)
                            .ok()
                            .filter(|token| is_token(token))?
                    ))
                };
                Some(named("bearer_file", path).header("one line with a token", bearer)?)
            }
            (None, None) => None,
        };
        let ca = ask
            .ca
            .as_deref()
            .filter(|_| !ask.insecure)
            .map(|path| named("ca", path).certificates())
            .transpose()?;
        let client = match (&access.client_cert, &access.client_key) {
            (Some(cert), Some(key)) => {
                let key = named("client_key", key);
                let bytes = key.read(Readers::NotEvery)?;
                let private = PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|_| key.other("a private key in PEM"))?;
                Some((named("client_cert", cert).certificates()?, private))
            }
            _ => None,
        };
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

/// The texts of a header `Authorization` that are secret: what it holds, and the password in that.
fn secrets(header: &HeaderValue) -> Vec<String> {
    let text = String::from_utf8_lossy(header.as_bytes()).into_owned();
    let Some((scheme, value)) = text.split_once(' ') else {
        return vec![text];
    };
    let mut all = vec![value.to_owned()];
    if scheme == "Basic"
        && let Some(line) = BASE64_STANDARD
            .decode(value)
            .ok()
            .and_then(|line| String::from_utf8(line).ok())
    {
        all.extend(
            line.split_once(':')
                .map(|(_, password)| password.to_owned()),
        );
    }
    // A shorter one stands in every text.
    all.retain(|text| text.len() >= 4);
    all
}

/// Whether a text is what RFC 6750 calls a token.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::fact::Access;

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
        let said = Credentials::of(&HttpRequest {
            access,
            ..HttpRequest::default()
        })
        .map_err(|e| e.to_string())?;
        Ok(said.authorization.unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_secrets_of_a_header_are_known() {
        let of = |text: &str| secrets(&HeaderValue::from_str(text).unwrap());
        assert_eq!(of("Basic b3BzOnRlOnN0"), ["b3BzOnRlOnN0", "te:st"]);
        assert_eq!(of("Bearer abc.def-1"), ["abc.def-1"]);
    }

    #[test]
    fn a_file_of_credentials_becomes_a_header_and_is_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let of = |bytes: &[u8], mode, key| read(dir.path(), bytes, mode, key);
        assert_eq!(
            of(b"ops:te:st\n", 0o600, "auth_file").unwrap(),
            "Basic b3BzOnRlOnN0"
        );
        assert_eq!(
            of("ü:x\r\n".as_bytes(), 0o440, "auth_file").unwrap(),
            "Basic w7w6eA=="
        );
        assert_eq!(
            of(b"abc.def-1\n", 0o600, "bearer_file").unwrap(),
            "Bearer abc.def-1"
        );
        for (bytes, mode, key, says) in [
            (&b"geheim"[..], 0o600, "auth_file", "USER:PASSWORD"),
            (b"a:geheim\nb:geheim\n", 0o600, "auth_file", "one line"),
            (b"", 0o600, "bearer_file", "a token"),
            (b"two geheim", 0o600, "bearer_file", "a token"),
            (b"a:geheim", 0o604, "auth_file", "chmod o-r"),
            (b"geheim", 0o644, "bearer_file", "chmod o-r"),
            (b"a:geheim", 0o620, "auth_file", "chmod go-w"),
            (b"geheim", 0o600, "client_key", "private key"),
        ] {
            let why = of(bytes, mode, key).unwrap_err();
            assert!(
                why.contains(says) && why.contains(key) && !why.contains("geheim"),
                "{key}: {why}"
            );
        }
    }
}
