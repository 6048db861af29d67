//! A certificate authority of this machine's own, for development: made once, kept under the state directory, so that
//! trusting it once is enough.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::error::{Error, Result};
use crate::policy::values::HostPattern;

/// A fresh certificate for localhost, loopback and the named hosts, with its chain. Without a state directory the
/// authority is made anew and forgotten.
pub(super) fn certificate(
    state: Option<&Path>,
    hosts: &[HostPattern],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (root, key) = match state {
        Some(state) => root(&state.join("ca"))?,
        None => make_root()?,
    };
    let issuer = Issuer::from_ca_cert_pem(&root, key).map_err(tls)?;
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    names.extend(hosts.iter().filter(|host| **host != HostPattern::Any).map(ToString::to_string));
    let mut params = CertificateParams::new(names).map_err(tls)?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    // Browsers and Apple's platforms refuse leaf certificates that live longer than 825 days.
    params.not_after = OffsetDateTime::now_utc() + Duration::days(90);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let leaf_key = KeyPair::generate().map_err(tls)?;
    let leaf = params.signed_by(&leaf_key, &issuer).map_err(tls)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    Ok((vec![leaf.der().clone()], key))
}

/// The authority's certificate (PEM) and key; made the first time.
fn root(dir: &Path) -> Result<(String, KeyPair)> {
    let (cert_path, key_path) = (dir.join("root.pem"), dir.join("root.key"));
    if let (Ok(cert), Ok(key)) = (fs::read_to_string(&cert_path), fs::read_to_string(&key_path)) {
        return Ok((cert, KeyPair::from_pem(&key).map_err(tls)?));
    }
    let (cert, key) = make_root()?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Error::File { path: dir.into(), error })?;
    write(&key_path, key.serialize_pem().as_bytes())?;
    write(&cert_path, cert.as_bytes())?;
    Ok((cert, key))
}

fn make_root() -> Result<(String, KeyPair)> {
    let key = KeyPair::generate().map_err(tls)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Palisade local authority");
    params.distinguished_name.push(DnType::OrganizationName, "Palisade (development, this machine only)");
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
    let cert = params.self_signed(&key).map_err(tls)?.pem();
    Ok((cert, key))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let error = |error| Error::File { path: path.into(), error };
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(error)?;
    file.write_all(bytes).map_err(error)
}

fn tls(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}
