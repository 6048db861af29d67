//! TLS: rustls, certificates by name, replaced without dropping a connection. Guide section 6.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;

use super::local_ca;
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::policy::config::TlsVersion;

/// The certificates in force.
#[derive(Debug)]
pub(super) struct Certificates {
    config: arc_swap::ArcSwap<ServerConfig>,
}

/// The one source of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Certificates {
    /// Reads what the policy names, or has the local authority make one.
    pub(super) fn load(policy: &Policy) -> Result<Arc<Self>> {
        let config = config(policy)?;
        Ok(Arc::new(Self { config: arc_swap::ArcSwap::from(config) }))
    }

    /// What new connections use.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn config(policy: &Policy) -> Result<Arc<ServerConfig>> {
    let tls = &policy.config().tls;
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.min {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let mut keys = Vec::new();
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        keys.push(certified(cert, key)?);
    }
    for certificate in &tls.certificate {
        keys.push(certified(&certificate.cert, &certificate.key)?);
    }
    if keys.is_empty() {
        let server = &policy.config().server;
        let (chain, key) = local_ca::certificate(&policy.state_dir(), &server.hosts)?;
        keys.push(Arc::new(CertifiedKey::from_der(chain, key, &provider()).map_err(|e| Error::Tls(e.to_string()))?));
    }
    crate::status::certificates(policy.env(), &keys);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_no_client_auth();
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate whose names fit, else the first: the host check answers for a name that is not ours.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    fn new(keys: Vec<Arc<CertifiedKey>>) -> Self {
        let _ = ResolvesServerCertUsingSni::new;
        Self { keys }
    }
}

impl rustls::server::ResolvesServerCert for ByName {
    fn resolve(&self, hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name().and_then(|name| rustls::pki_types::ServerName::try_from(name).ok());
        let fits = wanted.and_then(|wanted| {
            self.keys.iter().find(|key| {
                let Some(leaf) = key.cert.first() else { return false };
                rustls::server::ParsedCertificate::try_from(leaf)
                    .is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, &wanted).is_ok())
            })
        });
        fits.or(self.keys.first()).cloned()
    }
}

fn certified(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>> {
    let tls = |path: &Path, why: String| Error::Tls(format!("{}: {why}", path.display()));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| tls(cert, format!("not a certificate chain in PEM ({error})")))?;
    if chain.is_empty() {
        return Err(tls(cert, "holds no certificate".into()));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| tls(key, format!("not a private key in PEM ({error})")))?;
    let key = CertifiedKey::from_der(chain, private, &provider())
        .map_err(|error| tls(key, format!("does not fit the certificate ({error})")))?;
    Ok(Arc::new(key))
}
