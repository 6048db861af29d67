//! Who may use a route at all: its methods, and the addresses it is for.
//!
//! Guide section 1. Below `cors`, since a preflight carries no credential and asks on behalf of another method. That
//! `headers.docs` closes the documentation is said here too: who may read it is no matter of content, and so is enforced
//! under `--detect` and with `[headers]` switched off (threat 2).

use http::{StatusCode, request};
use palisade_policy::Problems;

use crate::context::Context;
use crate::control::{Asked, Check, Control, Info, NoRoute, Remedy, Routes};
use crate::controls::headers::{DOCS, Docs, docs_are_for};
use crate::controls::integrity::preflight_method;
use crate::policy::Env;
use crate::refusal::{Code, Stop};

/// A route of the path names other methods.
pub static METHOD: Code =
    Code::client("access.method", StatusCode::METHOD_NOT_ALLOWED, 1, "this path does not answer to this method");
/// The client's address is not one the route is for.
pub static ADDRESS: Code =
    Code::client("access.address", StatusCode::FORBIDDEN, 1, "this path is not open to your network")
        .owasp("authz_fail");

/// The control. Its keys are `methods` and `address` of routes.
#[derive(Debug)]
pub struct Access;

impl Control for Access {
    type Config = NoRoute;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "access",
        section: 1,
        codes: &[&METHOD, &ADDRESS],
        judges: false,
        about: "What a route answers to, and whom.",
    };

    fn compile(_: &NoRoute, _: &Routes<'_, NoRoute>, _: &Env, _: &mut Problems) -> Option<Self> {
        Some(Self)
    }
}

impl Check for Access {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        if let Some(allow) = ctx.other_methods()
            && preflight_method(parts).is_none()
            // Palisade's own endpoints have their own methods.
            && !ctx.path().starts_with("/.palisade/")
        {
            return Err(METHOD.refuse("no route of this path names the method").allow(allow).into());
        }
        let networks = &ctx.rule().address;
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(ctx.client_ip())) {
            return Err(ADDRESS.refuse("not in the route's `address`").into());
        }
        if docs_are_for(Docs::Closed, ctx) {
            return Err(DOCS.refuse("`headers.docs` does not open the documentation").into());
        }
        Ok(())
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        if *asked.judged.code == METHOD {
            let mut methods: Vec<&str> = asked.rule.methods().iter().map(http::Method::as_str).collect();
            methods.push(asked.method.as_str());
            return Some(Remedy::Route(format!("methods = {methods:?}")));
        }
        let mut networks: Vec<String> = asked.rule.address.iter().map(ToString::to_string).collect();
        networks.push(asked.client.to_owned());
        Some(Remedy::Route(format!("address = {networks:?}")))
    }
}
