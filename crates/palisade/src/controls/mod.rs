//! The registry of all controls: a line each. Their order in the stack is `stack.rs`'s.

pub mod access;
pub mod auth;
pub mod client_ip;
pub mod cors;
pub mod csrf;
pub mod error_mask;
pub mod headers;
pub mod hosts;
pub mod https_redirect;
pub mod integrity;
pub mod limits;
pub mod rate_limit;
pub mod static_files;
pub mod waf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::{Compiled, Control, ControlId, Info, Mode, RouteSection, Routes, Section};
use crate::policy::Env;
use crate::policy::config::{Logs, Route, Secrets, Server, Tls, Upstream};
use palisade_policy::Problems;

/// The mode of every control as its section says it, in the order of [`INFOS`].
pub fn section_modes(config: &Config) -> Vec<Mode> {
    written_modes(config).iter().map(|written| written.section.unwrap_or(Mode::Block)).collect()
}

macro_rules! registry {
    ($($name:ident: $control:ty,)*) => {
        /// What is fixed about every control, by its number.
        pub static INFOS: &[&Info] = &[$(&<$control as Control>::INFO),*];

        /// `palisade.toml`. Every key has a default; unknown keys are errors.
        #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        #[schemars(title = "Palisade policy")]
        pub struct Config {
            /// The version of this format. Optional.
            #[schemars(range(min = 1, max = 1))]
            pub version: Option<u32>,
            /// More files that lie over this one, in name order, such as `["conf.d/*.toml"]`. A pattern that matches
            /// nothing is an error.
            pub include: Vec<String>,
            /// Listeners, hosts and operation.
            pub server: Server,
            /// The application behind.
            pub upstream: Upstream,
            /// Other applications behind, by name; routes say which paths and hosts are theirs.
            pub upstreams: std::collections::BTreeMap<String, Upstream>,
            /// Certificates.
            pub tls: Tls,
            /// Where secrets come from.
            pub secrets: Secrets,
            /// How Palisade sends mail.
            pub mail: crate::policy::mail::Mail,
            /// Logs.
            pub log: Logs,
            /// Logins of browsers.
            pub session: auth::config::Session,
            /// What a new password must be.
            pub password: auth::config::Password,
            /// Where accounts, sessions, keys and clients are kept.
            pub database: auth::config::Database,
            /// What several instances share.
            pub redis: crate::redis::Config,
            $(#[allow(missing_docs)] pub $name: Section<$control>,)*
            /// The routes: the first match wins. Keys a route does not name keep their value from the sections above.
            pub route: Vec<RouteConfig>,
        }

        /// One `[[route]]`.
        #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        pub struct RouteConfig {
            #[serde(flatten)]
            #[allow(missing_docs)]
            pub route: Route,
            $(
                #[serde(skip_serializing)]
                #[allow(missing_docs)]
                pub $name: Option<RouteSection<$control>>,
            )*
        }

        /// The compiled controls, those that are off left out.
        #[derive(Debug)]
        pub struct Controls {
            $(#[allow(missing_docs)] pub $name: Compiled<$control>,)*
        }

        /// For each control: the mode of its section, and of each route, where written.
        pub(crate) struct WrittenModes {
            pub(crate) section: Option<crate::control::Mode>,
            pub(crate) routes: Vec<Option<crate::control::Mode>>,
        }

        pub(crate) fn written_modes(config: &Config) -> Vec<WrittenModes> {
            vec![$(WrittenModes {
                section: config.$name.mode,
                routes: config.route.iter().map(|route| route.$name.as_ref().and_then(|said| said.mode)).collect(),
            }),*]
        }

        /// Compiles every control that is not switched off everywhere.
        pub(crate) fn compile(config: &Config, env: &Env, wanted: impl Fn(ControlId) -> bool, problems: &mut Problems) -> Controls {
            let mut numbers = 0..;
            let names = route_names(config);
            Controls {
                $($name: {
                    let id = ControlId(numbers.next().unwrap_or_default());
                    let mut by_rule = vec![None];
                    by_rule.extend(config.route.iter().map(|route| route.$name.as_ref().map(|said| &said.config)));
                    // Those that directories of files have by themselves say nothing of any control.
                    by_rule.resize(names.len(), None);
                    let routes = Routes { by_rule, names: &names };
                    // Compiled in any case, so that problems show; dropped where no request needs it.
                    let control = <$control as Control>::compile(&config.$name.config, &routes, env, problems);
                    Compiled::new(id, control.filter(|_| wanted(id)))
                },)*
            }
        }
    };
}

/// What the rules of a policy are called: see [`Routes::names`].
fn route_names(config: &Config) -> Vec<String> {
    let name = |route: &Route| {
        let methods: Vec<&str> = route.methods.iter().map(|method| method.0.as_str()).collect();
        let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{host} {} {}", methods.join(","), route.path)
    };
    let files = static_files::routes(config);
    std::iter::once("default".to_owned())
        .chain(config.route.iter().map(|route| name(&route.route)))
        .chain(files.iter().map(|(_, route)| name(route)))
        .chain(auth::own_routes(config).iter().map(name))
        .collect()
}

registry! {
    integrity: integrity::Integrity,
    client_ip: client_ip::ClientIp,
    hosts: hosts::Hosts,
    https_redirect: https_redirect::HttpsRedirect,
    rate_limit: rate_limit::RateLimit,
    cors: cors::Cors,
    headers: headers::Headers,
    error_mask: error_mask::ErrorMask,
    access: access::Access,
    auth: auth::Auth,
    r#static: static_files::StaticFiles,
    limits: limits::Limits,
    waf: waf::Waf,
    csrf: csrf::Csrf,
}
