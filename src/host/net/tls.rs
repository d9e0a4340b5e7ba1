//! TLS to an instance: which certificates are trusted, and for which name.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
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

use crate::{
    assertion::HttpRequest,
    host::net::{credentials::Credentials, error::TlsError},
};

/// Speaks TLS over `stream` with a peer that shows a certificate for `name` which the request
/// trusts.
///
/// # Errors
/// Fails if there are no certificates to trust, or if the peer's is not trusted for `name`.
pub(crate) async fn connect<S>(
    stream: S,
    request: &HttpRequest,
    credentials: &Credentials,
    name: &str,
) -> Result<TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|e| TlsError::Name(name.into(), e))?;
    let mut config = config(request, credentials)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
        .connect(server_name, stream)
        .await
        .map_err(|why| TlsError::Handshake {
            why,
            ca: request.ca.is_some(),
            host: request.host.is_some(),
        })
}

/// Returns which certificates are trusted and shown.
///
/// # Errors
/// Fails if there are no certificates to trust, or none that can be shown.
pub(crate) fn config(
    request: &HttpRequest,
    credentials: &Credentials,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let trusting = match &credentials.ca {
        _ if request.insecure => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust::Any(provider))),
        Some(ca) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust::of(ca, provider)?)),
        None => builder.with_root_certificates(system_roots()?),
    };
    let mut config = match &credentials.client {
        Some((chain, key)) => trusting
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|_| TlsError::Client)?,
        None => trusting.with_no_client_auth(),
    };
    // A resumed session would not show the certificate that is served now.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Returns the certificates that this host trusts, read once.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // A certificate that cannot be read is not trusted; the others still are.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        Err(TlsError::NoRoots)
    } else {
        Ok(roots.clone())
    }
}

/// The certificates that are trusted instead of those that this host trusts.
#[derive(Debug)]
enum Trust {
    /// Any certificate.
    Any(Arc<CryptoProvider>),
    /// Certificates that these authorities have signed, and the certificates of these authorities.
    /// A self-signed certificate is its own authority, and a server shows it as it is.
    These(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>),
}

impl Trust {
    /// Trusts these certificates.
    fn of(
        certificates: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.clone()).map_err(TlsError::Ca)?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self::These(verifier, certificates.to_vec()))
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
            Self::Any(_) => Ok(ServerCertVerified::assertion()),
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
            // Any certificate is trusted, even one that cannot be read.
            Self::Any(_) => Ok(HandshakeSignatureValid::assertion()),
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
            Self::Any(_) => Ok(HandshakeSignatureValid::assertion()),
            Self::These(verifier, _) => verifier.verify_tls13_signature(message, shown, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self {
            Self::Any(provider) => provider
                .signature_verification_algorithms
                .supported_schemes(),
            Self::These(verifier, _) => verifier.supported_verify_schemes(),
        }
    }
}
