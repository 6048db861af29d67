//! TLS to an application: always verified, by the system's authorities or by named ones. Guide section 6.
//!
//! There is no switch that turns verification off. An application with a certificate of its own making is named by it:
//! `ca = "app.pem"`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context as Digest, SHA256};
use palisade_policy::Problems;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::Protocol;
use crate::policy::Env;
use crate::policy::config::Upstream;
use crate::server::startup::{self, Occasion};
use crate::server::tls::provider;

/// By its name in ALPN (RFC 9113 §3.2).
const HTTP2: &[u8] = b"h2";

/// What connections to one application are made with.
#[derive(Debug)]
pub(crate) struct Client {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    /// The same for HTTP/2.
    http2: Arc<ClientConfig>,
    /// Of everything that it was made from: another one is another identity, with connections of its own.
    digest: Box<str>,
}

impl Client {
    /// The handshake.
    pub(super) async fn handshake(&self, stream: TcpStream, protocol: Protocol) -> io::Result<TlsStream<TcpStream>> {
        let config = if protocol == Protocol::Http2 { &self.http2 } else { &self.config };
        let stream = TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), stream).await?;
        // Servers that know nothing of ALPN choose nothing: then it is HTTP/1.1.
        if protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(io::Error::other("the application does not offer HTTP/2"));
        }
        Ok(stream)
    }

    /// What a connection that is not HTTP is made with.
    #[cfg(feature = "redis")]
    pub(crate) fn parts(&self) -> (ServerName<'static>, ClientConfig) {
        (self.name.clone(), ClientConfig::clone(&self.config))
    }

    /// What connections that were made with it are kept under.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }
}

/// The client for an upstream that is reached over TLS; problems are reported under its key path. While a switch is put
/// in force what was read before stays: the files have been judged, and may be gone.
pub(crate) fn client(
    key: &str,
    upstream: &Upstream,
    env: &Env,
    occasion: Occasion,
    problems: &mut Problems,
) -> Option<Arc<Client>> {
    let (host, _) = upstream.url.as_ref().filter(|url| url.is_https())?.host_and_port()?;
    let last = env.state.get::<Mutex<Option<Arc<Client>>>>(&format!("{key} tls"), Mutex::default);
    let mut last = last.lock();
    if occasion == Occasion::Switch && last.is_some() {
        return last.clone();
    }
    let wanted = upstream.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']);
    let Ok(name) = ServerName::try_from(wanted.to_owned()) else {
        problems.error(&format!("{key}.server_name"), "not a host name", "write the name in the certificate");
        return None;
    };
    let files = Files::read(key, upstream, env, problems)?;
    let digest = files.digest(wanted);
    if let Some(same) = last.as_ref().filter(|last| *last.digest == *digest) {
        return Some(Arc::clone(same));
    }
    let config = files.config(key, problems)?;
    let mut http2 = ClientConfig::clone(&config);
    http2.alpn_protocols = vec![HTTP2.to_vec()];
    let client = Arc::new(Client { name, config, http2: Arc::new(http2), digest });
    *last = Some(Arc::clone(&client));
    Some(client)
}

/// What the files say.
struct Files {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Files {
    fn read(key: &str, upstream: &Upstream, env: &Env, problems: &mut Problems) -> Option<Self> {
        let roots = match &upstream.ca {
            Some(file) => certificates(&format!("{key}.ca"), file, problems)?,
            None => system(&format!("{key}.url"), problems)?,
        };
        let identity = match (&upstream.client_cert, &upstream.client_key) {
            (Some(cert), Some(file)) => {
                let at = format!("{key}.client_key");
                if !env.is_development() {
                    startup::private(&at, file, problems);
                }
                let chain = certificates(&format!("{key}.client_cert"), cert, problems)?;
                let private = match PrivateKeyDer::from_pem_file(file) {
                    Ok(private) => private,
                    Err(error) => {
                        let message = format!("`{}`: not a private key in PEM ({error})", file.display());
                        problems.error(&at, message, "name a PEM file that Palisade's user can read");
                        return None;
                    }
                };
                Some((chain, private))
            }
            // One without the other has been reported.
            _ => None,
        };
        Some(Self { roots, identity })
    }

    fn digest(&self, name: &str) -> Box<str> {
        let mut digest = Digest::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        add(name.as_bytes());
        self.roots.iter().for_each(|root| add(root));
        if let Some((chain, key)) = &self.identity {
            add(b"identity");
            chain.iter().for_each(|certificate| add(certificate));
            add(key.secret_der());
        }
        data_encoding::HEXLOWER.encode(digest.finish().as_ref()).into()
    }

    fn config(self, key: &str, problems: &mut Problems) -> Option<Arc<ClientConfig>> {
        let mut store = RootCertStore::empty();
        // What the system trusts may hold a certificate that nobody can read; of named ones each must be good.
        let (good, bad) = store.add_parsable_certificates(self.roots);
        if good == 0 {
            let message = format!("none of its {bad} certificates can be used");
            problems.error(&format!("{key}.ca"), message, "name the authority's certificate, in PEM");
            return None;
        }
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions);
        let builder = match builder {
            Ok(builder) => builder.with_root_certificates(store),
            Err(error) => {
                problems.error(&format!("{key}.url"), error.to_string(), "this build of Palisade cannot speak TLS");
                return None;
            }
        };
        let config = match self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, private)) => builder.with_client_auth_cert(chain, private),
        };
        match config {
            Ok(mut config) => {
                // What the codec speaks; an application that insists on another protocol refuses here.
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some(Arc::new(config))
            }
            Err(error) => {
                let message = format!("this certificate and key do not fit ({error})");
                problems.error(&format!("{key}.client_cert"), message, "name a chain, leaf first, and the leaf's key");
                None
            }
        }
    }
}

fn certificates(at: &str, file: &Path, problems: &mut Problems) -> Option<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let why = match read {
        Ok(all) if !all.is_empty() => return Some(all),
        Ok(_) => "holds no certificate".to_owned(),
        Err(error) => format!("not certificates in PEM ({error})"),
    };
    let message = format!("`{}`: {why}", file.display());
    problems.error(at, message, "name a PEM file that Palisade's user can read");
    None
}

fn system(at: &str, problems: &mut Problems) -> Option<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        problems.error(
            at,
            format!("this system trusts no authority{why}"),
            "install `ca-certificates`, or name the one that signed the upstream's certificate in `ca`",
        );
        return None;
    }
    Some(found.certs)
}
