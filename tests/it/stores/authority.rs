//! Certificates for stores and their clients.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use crate::support::write;

/// Certificates of one authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `NAME.pem` and `NAME.key` for `names`.
    pub(super) fn issue(
        &self,
        dir: &Path,
        name: &str,
        names: &[&str],
    ) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let own = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&own, &self.0).unwrap();
        write(&dir.join(format!("{name}.pem")), &certificate.pem());
        private(&dir.join(format!("{name}.key")), &own.serialize_pem());
        (certificate, own)
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Returns the config of a server for `127.0.0.1` that wants a certificate of this authority
    /// from its clients.
    pub(super) fn server(&self, dir: &Path) -> Arc<ServerConfig> {
        let (certificate, own) = self.issue(dir, "server", &["127.0.0.1"]);
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let own = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], own)
            .unwrap();
        Arc::new(config)
    }
}

/// Writes a file that only its owner may read.
pub(super) fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
