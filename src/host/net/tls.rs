//! TLS to an instance: whom it is believed to be, by which certificates.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{fact::HttpRequest, host::net::credentials::Credentials};

/// Speaks TLS over `stream` with whoever can show a certificate for `name` that the fact trusts.
///
/// # Errors
/// A sentence: no certificates to trust, or not the one that is wanted.
pub(crate) async fn connect<S>(
    stream: S,
    ask: &HttpRequest,
    credentials: &Credentials,
    name: &str,
) -> Result<TlsStream<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let named = ServerName::try_from(name.to_owned()).map_err(|e| format!("`{name}`: {e}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let believes = match &credentials.ca {
        _ if ask.insecure => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust::Anybody(provider))),
        Some(ca) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust::of(ca, provider)?)),
        None => builder.with_root_certificates(of_the_system()?),
    };
    let mut config = match &credentials.client {
        Some((chain, key)) => believes
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|_| {
                "client_cert and client_key do not go together, or are of a sort that is not known"
                    .to_owned()
            })?,
        None => believes.with_no_client_auth(),
    };
    // A resumed session would not show the certificate that is served now.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
        .connect(named, stream)
        .await
        .map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref()) {
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer))
                if ask.ca.is_none() =>
            {
                format!("{e}; name what it is signed by with `ca`")
            }
            Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                ..
            })) if ask.host.is_none() => format!("{e}; say its name with `host`"),
            _ => e.to_string(),
        })
}

/// Those that this host trusts, read once.
fn of_the_system() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // One that cannot be read vouches for nobody; the others still do.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        Err(
            "this host has no certificates that it trusts (package `ca-certificates`); name some \
             with `ca`"
                .into(),
        )
    } else {
        Ok(roots.clone())
    }
}

/// Who is believed, other than the authorities of this host.
#[derive(Debug)]
enum Trust {
    /// Whatever is shown.
    Anybody(Arc<CryptoProvider>),
    /// What these authorities have signed, and their own certificates: a self-signed one is its own
    /// authority, and is served as it is.
    These(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>),
}

impl Trust {
    /// These certificates.
    fn of(all: &[CertificateDer<'static>], provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("ca: {why}");
        let mut roots = RootCertStore::empty();
        for certificate in all {
            roots.add(certificate.clone()).map_err(|e| wrong(&e))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| wrong(&e))?;
        Ok(Self::These(verifier, all.to_vec()))
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self {
            Self::Anybody(_) => Ok(ServerCertVerified::assertion()),
            Self::These(_, own) if own.contains(shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            Self::These(verifier, _) => {
                verifier.verify_server_cert(shown, chain, name, stapled, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            // A certificate that cannot even be read is one of any.
            Self::Anybody(_) => Ok(HandshakeSignatureValid::assertion()),
            Self::These(verifier, _) => verifier.verify_tls12_signature(message, shown, signed),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self {
            Self::Anybody(_) => Ok(HandshakeSignatureValid::assertion()),
            Self::These(verifier, _) => verifier.verify_tls13_signature(message, shown, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Self::Anybody(provider) => provider
                .signature_verification_algorithms
                .supported_schemes(),
            Self::These(verifier, _) => verifier.supported_verify_schemes(),
        }
    }
}
