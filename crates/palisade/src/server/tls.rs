//! TLS: rustls, certificates by name, replaced without dropping a connection. Guide section 6.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use palisade_base::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::local_ca;
use crate::error::{Error, Result};
use crate::policy::config::TlsVersion;
use crate::policy::values::HostPattern;
use crate::policy::{Env, Policy};

/// Before a certificate of the local authority is this close to its end, another one is made.
const RENEW_BEFORE_MS: i64 = 30 * 24 * 3_600_000;

/// The certificates in force, shared by all listeners. A new connection takes what is there; those that run keep theirs.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    loaded: ArcSwapOption<Loaded>,
}

/// What was read at one moment.
#[derive(Debug)]
pub(crate) struct Loaded {
    public: Arc<ServerConfig>,
    admin: Arc<ServerConfig>,
    /// The certificates of `public`.
    names: Arc<ByName>,
    /// Those of the policy, or the local one where it names none.
    facts: Vec<Fact>,
    local: Option<Local>,
}

/// What is known about a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    /// The file, or `local authority`.
    pub(crate) source: Arc<str>,
    /// The names it is for.
    pub(crate) names: Vec<String>,
    /// From when on it is valid.
    pub(crate) not_before: Timestamp,
    /// Until when.
    pub(crate) not_after: Timestamp,
}

impl Fact {
    /// Whether it is valid at a time.
    pub(crate) fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    fn read(source: &str, leaf: &CertificateDer<'_>) -> std::result::Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        });
        let validity = parsed.validity();
        Ok(Self {
            source: source.into(),
            names: names.collect(),
            not_before: Timestamp(validity.not_before.timestamp().saturating_mul(1000)),
            not_after: Timestamp(validity.not_after.timestamp().saturating_mul(1000)),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The certificate of the local authority, kept over reloads that change nothing about it.
#[derive(Debug, Clone)]
struct Local {
    hosts: Vec<HostPattern>,
    key: Arc<CertifiedKey>,
    fact: Fact,
}

/// The one source of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The certificates of the server that an environment belongs to.
pub(crate) fn certificates(env: &Env) -> Arc<Certificates> {
    env.state.get("certificates", Certificates::default)
}

impl Certificates {
    /// Whether any listener needs them.
    pub(crate) fn are_used(&self) -> bool {
        self.loaded.load().is_some()
    }

    /// Reads what the policy names, or has the local authority make one, without putting it in force.
    ///
    /// # Errors
    /// When a file cannot be used; what is in force stays.
    pub(crate) fn read(&self, policy: &Policy) -> Result<Arc<Loaded>> {
        let before = self.loaded.load_full().and_then(|loaded| loaded.local.clone());
        read(policy, before).map(Arc::new)
    }

    /// Puts what was read in force for new connections.
    pub(crate) fn store(&self, loaded: Arc<Loaded>) {
        self.loaded.store(Some(loaded));
    }

    /// What new connections to the API use.
    pub(super) fn public(&self) -> Option<Arc<ServerConfig>> {
        self.loaded.load().as_ref().map(|loaded| Arc::clone(&loaded.public))
    }

    /// What new connections to the admin listener use.
    pub(super) fn admin(&self) -> Option<Arc<ServerConfig>> {
        self.loaded.load().as_ref().map(|loaded| Arc::clone(&loaded.admin))
    }

    /// The certificates that the API is served with.
    pub(crate) fn facts(&self) -> Vec<Fact> {
        self.loaded.load().as_ref().map(|loaded| loaded.facts.clone()).unwrap_or_default()
    }

    /// Whether the API's certificates are all valid at a time. Without TLS here there is none to be invalid.
    pub(crate) fn are_valid(&self, now: Timestamp) -> bool {
        self.loaded.load().as_ref().is_none_or(|loaded| loaded.facts.iter().all(|fact| fact.is_valid(now)))
    }

    /// Whether a host is served with another certificate than the one that was shown to who asked for a name: then the
    /// connection is not that host's. Threat 19.
    pub(crate) fn is_anothers(&self, host: &str, asked: &str) -> bool {
        let loaded = self.loaded.load();
        let Some(names) = loaded.as_ref().map(|loaded| &loaded.names).filter(|names| names.keys.len() > 1) else {
            return false;
        };
        let Ok(host) = ServerName::try_from(host.trim_matches(['[', ']'])) else { return false };
        let asked = ServerName::try_from(asked).ok();
        let (shown, own) = (asked.and_then(|asked| names.find(&asked)).unwrap_or(0), names.find(&host).unwrap_or(0));
        // What was shown may be for the host too: browsers then use one connection of HTTP/2 for both (RFC 9113 §9.1.1).
        shown != own && !names.is_for(shown, &host)
    }

    /// Whether the local authority has to make another one soon.
    pub(super) fn wants_renewal(&self, now: Timestamp) -> bool {
        let loaded = self.loaded.load();
        loaded.as_ref().and_then(|loaded| loaded.local.as_ref()).is_some_and(|local| ends_soon(&local.fact, now))
    }
}

fn ends_soon(fact: &Fact, now: Timestamp) -> bool {
    fact.not_after.0 < now.0.saturating_add(RENEW_BEFORE_MS)
}

fn read(policy: &Policy, before: Option<Local>) -> Result<Loaded> {
    let tls = &policy.config().tls;
    let (mut keys, mut facts) = (Vec::new(), Vec::new());
    for (cert, key) in tls.pairs() {
        let (key, fact) =
            certified(cert, key).map_err(|(path, why)| Error::Tls(format!("{}: {why}", path.display())))?;
        keys.push(key);
        facts.push(fact);
    }
    // Nobody can have a public certificate for `localhost`, and that is where the admin listener is asked for.
    let needs_local = keys.is_empty() || policy.config().server.admin.address().is_some();
    let local = if needs_local { Some(local(policy, before)?) } else { None };
    let mut admin_keys = keys.clone();
    if let Some(local) = &local {
        admin_keys.insert(0, Arc::clone(&local.key));
        if keys.is_empty() {
            keys.push(Arc::clone(&local.key));
            facts.push(local.fact.clone());
        }
    }
    let names = Arc::new(ByName { keys });
    Ok(Loaded {
        public: config(tls.min, Arc::clone(&names), &[b"h2", b"http/1.1"])?,
        admin: config(tls.min, Arc::new(ByName { keys: admin_keys }), &[b"http/1.1"])?,
        names,
        facts,
        local,
    })
}

fn local(policy: &Policy, before: Option<Local>) -> Result<Local> {
    let server = &policy.config().server;
    let hosts: Vec<HostPattern> = server.hosts.iter().chain(&server.admin_hosts).cloned().collect();
    let now = policy.clock().now();
    if let Some(before) = before.filter(|before| before.hosts == hosts && !ends_soon(&before.fact, now)) {
        return Ok(before);
    }
    let state = policy.state_dir();
    let (chain, key) = match local_ca::certificate(Some(&state), &hosts) {
        Ok(made) => made,
        // Where the API has a certificate of its own, a file system without a writable place is no reason not to serve:
        // the admin listener then has an authority that lives as long as the process.
        Err(Error::File { .. }) if policy.config().tls.pairs().next().is_some() => local_ca::certificate(None, &hosts)?,
        Err(error) => return Err(error),
    };
    let fact = chain.first().map(|leaf| Fact::read("local authority", leaf));
    let fact = fact.unwrap_or_else(|| Err("no certificate".into())).map_err(Error::Tls)?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| Error::Tls(error.to_string()))?;
    Ok(Local { hosts, key: Arc::new(key), fact })
}

fn config(min: TlsVersion, names: Arc<ByName>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>> {
    let versions: &[&rustls::SupportedProtocolVersion] = match min {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_no_client_auth();
    let mut config = builder.with_cert_resolver(names);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificate whose names fit, else the first: the host check answers for a name that is not ours.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    fn find(&self, name: &ServerName<'_>) -> Option<usize> {
        (0..self.keys.len()).find(|place| self.is_for(*place, name))
    }

    fn is_for(&self, place: usize, name: &ServerName<'_>) -> bool {
        let leaf = self.keys.get(place).and_then(|key| key.cert.first());
        leaf.is_some_and(|leaf| is_for(leaf, name))
    }
}

impl rustls::server::ResolvesServerCert for ByName {
    fn resolve(&self, hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = || self.find(&ServerName::try_from(hello.server_name()?).ok()?);
        let chosen = if self.keys.len() > 1 { fits() } else { None };
        self.keys.get(chosen.unwrap_or(0)).cloned()
    }
}

fn is_for(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(leaf).is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, name).is_ok())
}

/// Whether a certificate is for a host of the policy; for `*.example.com`, for some name right below.
pub(super) fn covers(key: &CertifiedKey, host: &HostPattern) -> bool {
    let name = match host {
        HostPattern::Any => return true,
        HostPattern::Exact(name) => name.trim_matches(['[', ']']).to_owned(),
        HostPattern::Below(suffix) => format!("any{suffix}"),
    };
    let Ok(name) = ServerName::try_from(name) else { return false };
    key.cert.first().is_some_and(|leaf| is_for(leaf, &name))
}

/// Why a file of PEM could not be read.
fn unread(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => "there is no such file".into(),
        pem::Error::Io(error) => format!("cannot be read ({error})"),
        error => format!("not {what} in PEM ({error})"),
    }
}

/// Reads a certificate chain and its key.
///
/// # Errors
/// The file that is to blame, and why.
pub(super) fn certified<'p>(
    cert: &'p Path,
    key: &'p Path,
) -> std::result::Result<(Arc<CertifiedKey>, Fact), (&'p Path, String)> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| (cert, unread(&error, "a certificate chain")))?;
    let Some(leaf) = chain.first() else { return Err((cert, "holds no certificate".into())) };
    let fact = Fact::read(&cert.display().to_string(), leaf)
        .map_err(|error| (cert, format!("the first certificate cannot be read ({error})")))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| (key, unread(&error, "a private key")))?;
    // Refuses a key that belongs to another certificate: the two files are often swapped one after the other.
    let certified = CertifiedKey::from_der(chain, private, &provider())
        .map_err(|error| (key, format!("does not fit the certificate ({error})")))?;
    Ok((Arc::new(certified), fact))
}
