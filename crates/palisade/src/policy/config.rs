//! What the fixed sections of `palisade.toml` may say. The controls' own sections stand beside the controls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use palisade_base::{ByteSize, Cidr, Interval, SecretRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::request_headers::RequestHeaders;
use super::values::{HostPattern, Listen, MethodName, PathPattern, PathPrefix, Timeout, UpstreamUrl};
use crate::control::RouteSection;
use crate::controls::auth::config::Grant;
use crate::controls::cors::Cors;
use crate::controls::limits::Limits;

/// Whether the gateway faces the internet or a developer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deployment {
    /// What is unsafe does not start.
    #[default]
    Production,
    /// Listens on loopback only, with a certificate of its own.
    Development,
}

/// `[server]`: listeners, hosts and operation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Server {
    /// `production` or `development`.
    pub mode: Deployment,
    /// Where HTTPS is served: an address and port, or `"off"` behind a proxy that ends TLS. Default `0.0.0.0:443`; in
    /// development `127.0.0.1:8443`.
    pub https: Option<Listen>,
    /// Where plain HTTP is answered, or `"off"`. Default `0.0.0.0:80`; in development `127.0.0.1:8080`.
    pub http: Option<Listen>,
    /// What `http` does: `false` redirects browsers to HTTPS, `true` serves the API. Default `false`; in development
    /// `true`.
    pub plaintext: Option<bool>,
    /// The admin listener (HTTPS): `/health`, `/ready`, `/status`, `/metrics`. Everything but `/health` needs
    /// `admin_token`.
    pub admin: Listen,
    /// Further names the admin listener answers to, besides `localhost` and loopback addresses.
    pub admin_hosts: Vec<HostPattern>,
    /// Who may reach an admin listener that is not on loopback.
    pub admin_address: Vec<Cidr>,
    /// The token that scripts present to the admin listener as `Authorization: Bearer …`.
    pub admin_token: Option<SecretRef>,
    /// A listener for `/health`, `/ready` and `/metrics` and nothing else, in plain HTTP, for kubelet and Prometheus.
    pub probes: Listen,
    /// The names this gateway serves: exact, or `"*.example.com"`. Required in production; in development localhost
    /// and loopback addresses. `"*"` is legal in development only. The port is ignored.
    pub hosts: Vec<HostPattern>,
    /// Proxies in front whose forwarding headers are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// The one header in which a trusted proxy says who the client is.
    pub client_address_header: ClientAddressHeader,
    /// Connections of `trusted_proxies` to `https` and `http` begin with the PROXY protocol (version 1 or 2), which names
    /// the client; without it they are closed. From everybody else it is refused.
    pub proxy_protocol: bool,
    /// What Palisade writes lies here, mode 0600. Default `.palisade`; in production `$STATE_DIRECTORY` or
    /// `/var/lib/palisade`.
    pub state: Option<PathBuf>,
    /// How long after SIGTERM connections are still accepted while `/ready` already fails, so that a balancer notices.
    pub lame_duck: Interval,
    /// The longest time from SIGTERM to the end, `lame_duck` included; requests still running then are cut.
    pub drain: Interval,
    /// Answers `/health` and `/ready` on the public port too.
    pub public_health: bool,
    /// What must answer for `/ready` to succeed, besides the gateway itself: `["upstream"]`. Empty by default, since
    /// all instances would leave together.
    pub ready_needs: Vec<ReadyNeed>,
    /// Shares ports that an older process of the same user still listens on, so that it can leave without a refused
    /// connection. Without it, a taken port is an error.
    pub takeover: bool,
    /// I/O threads. Default: one a core.
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<usize>,
    /// Lets development mode listen outside loopback. Anybody on the network can then use the API without the
    /// protection of production.
    pub insecure_development_on_network: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            mode: Deployment::default(),
            https: None,
            http: None,
            plaintext: None,
            admin: Listen::loopback(9443),
            admin_hosts: Vec::new(),
            admin_address: Vec::new(),
            admin_token: None,
            probes: Listen::Off,
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            client_address_header: ClientAddressHeader::default(),
            proxy_protocol: false,
            state: None,
            lame_duck: Interval::secs(5),
            drain: Interval::secs(25),
            public_health: false,
            ready_needs: Vec::new(),
            takeover: false,
            workers: None,
            insecure_development_on_network: false,
        }
    }
}

impl Server {
    /// Whether this is development.
    pub fn is_development(&self) -> bool {
        self.mode == Deployment::Development
    }

    /// `https`, with the default of the mode.
    pub fn https(&self) -> Listen {
        self.https.unwrap_or(if self.is_development() { Listen::loopback(8443) } else { Listen::everywhere(443) })
    }

    /// `http`, with the default of the mode.
    pub fn http(&self) -> Listen {
        self.http.unwrap_or(if self.is_development() { Listen::loopback(8080) } else { Listen::everywhere(80) })
    }

    /// `plaintext`, with the default of the mode.
    pub fn plaintext(&self) -> bool {
        self.plaintext.unwrap_or(self.is_development())
    }

    /// `workers`, by default as many as there are cores.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// The headers that can say who the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAddressHeader {
    /// The list that most proxies append to.
    #[default]
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
    /// One address.
    #[serde(rename = "X-Real-IP")]
    XRealIp,
    /// One address, as Cloudflare sends it.
    #[serde(rename = "CF-Connecting-IP")]
    CfConnectingIp,
}

/// What `/ready` may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadyNeed {
    /// A connection to the upstream can be made.
    Upstream,
}

/// `[upstream]`: the application behind; `[upstreams.NAME]` says the same keys of another one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Upstream {
    /// Where it listens: `http://127.0.0.1:8000`, `https://billing.internal` or `unix:/run/app.sock`.
    pub url: Option<UpstreamUrl>,
    /// The command that starts it, instead of `url`: `["uvicorn", "main:app", "--uds", "{socket}"]`, or with
    /// `{port}`. Palisade supervises it. In `[upstream]` only.
    pub command: Vec<String>,
    /// Environment variables for `command`, besides the few that every application gets.
    pub env: BTreeMap<String, String>,
    /// The user that `command` runs as, when Palisade was started as root.
    pub user: Option<String>,
    /// How long a supervised application may take to end after SIGTERM before it is killed.
    pub stop_timeout: Interval,
    /// How long a connection may take to be made.
    pub connect_timeout: Interval,
    /// How long the answer's first byte may take once the request was sent, or `"off"`. Never for WebSockets.
    pub response_timeout: Timeout,
    /// How long a connection without a request is kept. Shorter than the application's own keep-alive (uvicorn: 5 s),
    /// so that no request meets a closing connection.
    pub idle_timeout: Interval,
    /// The application's OpenAPI document: a path on the upstream (FastAPI's `openapi_url`), a file (`./…`), or `off`.
    pub openapi: String,
    /// The prefix that the application believes it is reached under (FastAPI's and uvicorn's `root_path`) and may answer
    /// to besides. The gateway owns it: routes are written without it, and it is never forwarded.
    pub root_path: Option<PathPrefix>,
    /// Headers that every request to this application gets, and that it does not.
    pub request_headers: RequestHeaders,
    /// Of an `https:` upstream: the authorities that may have signed its certificate, PEM, and no others. Default:
    /// those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate chain that Palisade shows an `https:` upstream, PEM, leaf first.
    pub client_cert: Option<PathBuf>,
    /// Its private key, PEM; readable by nobody else.
    pub client_key: Option<PathBuf>,
    /// Whose pages may read answers of this application: the keys of `[cors]`, for the routes that lead here. In
    /// `[upstreams.NAME]` only.
    #[serde(skip_serializing)]
    pub cors: Option<Arc<RouteSection<Cors>>>,
    /// How much requests to this application may be: what a route may say, for the routes that lead here. In
    /// `[upstreams.NAME]` only.
    #[serde(skip_serializing)]
    pub limits: Option<Arc<RouteSection<Limits>>>,
    /// The name that the certificate of an `https:` upstream must be for, and that is asked for (SNI). Default: the
    /// host of `url`.
    pub server_name: Option<String>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: None,
            command: Vec::new(),
            env: BTreeMap::new(),
            user: None,
            stop_timeout: Interval::secs(10),
            connect_timeout: Interval::secs(5),
            response_timeout: Timeout::After(Interval::secs(60)),
            idle_timeout: Interval::secs(3),
            openapi: "/openapi.json".into(),
            root_path: None,
            request_headers: RequestHeaders::default(),
            ca: None,
            client_cert: None,
            client_key: None,
            cors: None,
            limits: None,
            server_name: None,
        }
    }
}

/// `[tls]`: certificates. Guide section 6.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tls {
    /// The certificate chain, PEM, leaf first.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM; readable by nobody else.
    pub key: Option<PathBuf>,
    /// More certificates, chosen by the name that the client asks for.
    pub certificate: Vec<Certificate>,
    /// A certificate of a local authority that Palisade makes and keeps under `server.state`. Default: in development.
    pub self_signed: Option<bool>,
    /// The oldest TLS version that is spoken.
    pub min: TlsVersion,
}

impl Tls {
    /// Every certificate with its key, where both are named.
    pub fn pairs(&self) -> impl Iterator<Item = (&std::path::Path, &std::path::Path)> {
        let single = self.cert.as_deref().zip(self.key.as_deref());
        single.into_iter().chain(self.certificate.iter().map(|pair| (&*pair.cert, &*pair.key)))
    }
}

/// One certificate of `[[tls.certificate]]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// The certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Its private key, PEM; readable by nobody else.
    pub key: PathBuf,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 with forward secrecy and authenticated encryption only, and TLS 1.3.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    V1_3,
}

/// `[secrets]`: where `{ secret = "name" }` is looked up, and how old keys become. Guide section 11.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Secrets {
    /// `"file"` is an encrypted file, `secrets.age` under `server.state`, or the one of `"file:PATH"`; `palisade secret
    /// set` writes it. `"env"` reads `PALISADE_SECRET_NAME` from the environment, `"dir:/run/secrets"` the file of that
    /// name, and in development `"dotenv:.env"` the line `PALISADE_SECRET_NAME=…`.
    pub provider: super::values::SecretProvider,
    /// How old the keys become that Palisade makes for itself, before new ones take over; or `"off"`. Where the provider
    /// cannot be written they are the operator's to replace.
    pub rotate: Timeout,
    /// The same for the peppers of password hashes. Old peppers are kept for the hashes that have them.
    pub rotate_pepper: Timeout,
    /// How long a new key is published before it is used: longer than anyone keeps the JWKS.
    pub lead: Interval,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            provider: super::values::SecretProvider::default(),
            rotate: Timeout::After(Interval::secs(90 * 86_400)),
            rotate_pepper: Timeout::Off,
            lead: Interval::secs(600),
        }
    }
}

/// `[log]`: where logs go. Guide section 16.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Logs {
    /// `json`, or `pretty` for people.
    pub format: LogFormat,
    /// One line a request: `stdout`, `stderr`, `off`, or a file.
    pub access: String,
    /// Security and life-cycle events: `stdout`, `stderr`, `off`, or a file.
    pub security: String,
    /// What a supervised application prints: `redacted`, with passwords, tokens and cards replaced, or `raw`.
    pub app: AppOutput,
}

/// What happens to the output of a supervised application on its way to standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppOutput {
    /// Values behind names of secrets, tokens and cards are replaced.
    #[default]
    Redacted,
    /// As it is printed.
    Raw,
}

impl Default for Logs {
    fn default() -> Self {
        Self { format: LogFormat::Json, access: "stdout".into(), security: "stdout".into(), app: AppOutput::Redacted }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A JSON object a line.
    #[default]
    Json,
    /// For people.
    Pretty,
}

/// The fixed keys of a `[[route]]`; those of the controls stand beside them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// The paths: `/` is exactly that, `/admin/*` covers `/admin`, `/admin/` and all below, `/admin/+` only what is
    /// below, `/users/{id:int}` a segment of a type (`int`, `uuid`, default any segment).
    pub path: PathPattern,
    /// The host, exact or `"*.example.com"`. Default: every host of `server.hosts`.
    pub host: Option<HostPattern>,
    /// The methods. Default: all. `HEAD` comes with `GET`. A method that no route of the path names answers 405.
    pub methods: Vec<MethodName>,
    /// Open to everybody, without a login. Without `[auth]` every route is.
    pub public: Option<bool>,
    /// For people's accounts: not for clients that act for themselves.
    pub user: Option<bool>,
    /// For users with one of these roles.
    pub roles: Vec<Grant>,
    /// For users whose roles hold all of these permissions.
    pub permissions: Vec<Grant>,
    /// For credentials with all of these scopes. API keys, tokens of clients and tokens that were asked for with scopes pass
    /// no route that names none; a session, and a token without scopes, stand for all that their user may do.
    pub scopes: Vec<Grant>,
    /// For API keys.
    pub key: Option<bool>,
    /// For logins that are no older than this, such as `"5m"`.
    pub max_age: Option<Interval>,
    /// A condition over the request and its caller, such as `"path.user_id == user.app_id"`: CEL, checked when the policy is
    /// read. What is missing, repeated or of another kind refuses.
    pub when: Option<String>,
    /// The networks whose clients this route is for. Default: everybody.
    pub address: Vec<Cidr>,
    /// Encoded slashes in this route's paths are allowed and forwarded as sent.
    pub encoded_slash: Option<bool>,
    /// `;` parameters in this route's paths are allowed.
    pub path_parameters: Option<bool>,
    /// What happens to repeated slashes.
    pub slashes: Option<crate::controls::integrity::Slashes>,
    /// The parameter by which the application lets requests of this route be another method than they were sent as,
    /// instead of `integrity.method_parameter`; `"off"`: it arrives.
    pub method_parameter: Option<crate::controls::integrity::MethodParameter>,
    /// gRPC passes, to an application that speaks HTTP/2. `limits.body` then holds for each message.
    pub grpc: bool,
    /// Which application answers: a name of `[upstreams.NAME]`. Default: `[upstream]`.
    pub upstream: Option<String>,
    /// The beginning of this route's path, taken off before the application sees it. It learns it from
    /// `X-Forwarded-Prefix`.
    pub strip_prefix: Option<PathPrefix>,
    /// Headers that the application gets with requests of this route, and that it does not; beside those of its
    /// upstream.
    pub request_headers: RequestHeaders,
    /// What caches may keep of this route's personal answers, instead of `headers.cache`: `upstream` leaves it to the
    /// application, or to `cache` of `[[static]]`.
    pub cache: Option<crate::controls::headers::Cache>,
}

/// Sizes that no policy can raise: what a head may be at most.
pub const HARD_HEADER_BYTES: ByteSize = ByteSize::kib(256);
