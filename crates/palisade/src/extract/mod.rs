//! What handlers of an axum router take: facts that the stack has established, as arguments.
//!
//! Guide section 18. An extractor is evidence: a handler that takes [`CsrfChecked`] is not run without it. Each needs
//! [`palisade::State`](crate::State), which only [`Palisade`](crate::Palisade) can make, so a router that has not the
//! stack round it does not compile:
//!
//! ```
//! use palisade::extract::ClientIp;
//! use palisade::prelude::*;
//!
//! async fn me(ClientIp(address): ClientIp) -> String {
//!     address.to_string()
//! }
//!
//! let router: Router<palisade::State> = Router::new().route("/me", get(me));
//! ```
//!
//! The same router by itself, as `axum::serve` would take it, does not compile; this is so for every one of them:
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: ClientIp) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: User) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: OptionalUser) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: HasRole<Admin>) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: HasPermission<Admin>) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: HasScope<Admin>) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: ApiKey) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: FreshLogin) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: CsrfChecked) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! ```compile_fail,E0277
//! # use palisade::prelude::*;
//! # async fn me(_: Db) {}
//! let router: Router<()> = Router::new().route("/me", get(me));
//! ```
//!
//! With the state each of them does, so that nothing else is the reason:
//!
//! ```
//! # use palisade::prelude::*;
//! # async fn a(_: ClientIp, _: User, _: OptionalUser, _: HasRole<Admin>, _: HasPermission<Admin>) {}
//! # async fn b(_: HasScope<Admin>, _: ApiKey, _: FreshLogin, _: CsrfChecked, _: Db) {}
//! let router: Router<palisade::State> = Router::new().route("/a", get(a)).route("/b", get(b));
//! ```
//!
//! And nobody but the stack has a state to give it:
//!
//! ```compile_fail,E0599
//! # use palisade::prelude::*;
//! let router: Router<()> = Router::<palisade::State>::new().with_state(palisade::State::default());
//! ```
//!
//! An application with a state of its own holds the stack's in it and says so with axum's `FromRef`.

mod client_ip;
mod csrf_checked;
mod db;
mod grants;
mod user;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, request};

pub use client_ip::ClientIp;
pub use csrf_checked::CsrfChecked;
pub use db::{Db, Owned};
pub use grants::{Admin, ApiKey, FreshLogin, HasPermission, HasRole, HasScope, Named};
pub use palisade_identity::service::UserId;
pub use user::{OptionalUser, User};

use crate::context::Context;
use crate::refusal::{Code, Refusal};

/// A handler asks for what the stack knows, and the stack is not round it.
pub static UNPROTECTED: Code = Code::palisade(
    "palisade.unprotected",
    StatusCode::INTERNAL_SERVER_ERROR,
    18,
    "this part of the application is not protected",
);

/// The codes of extractors.
pub(crate) static CODES: &[&Code] = &[&UNPROTECTED, &db::NO_DATABASE, &db::AWAY, &db::CONFLICT, &db::FAILED];

/// What is known of the request.
pub(crate) fn context(parts: &request::Parts) -> Result<Arc<Context>, Refusal> {
    let known = parts.extensions.get::<Arc<Context>>().cloned();
    known.ok_or_else(|| UNPROTECTED.refuse("a handler with an extractor of Palisade's runs outside of its stack"))
}

/// Refusals of handlers and extractors are rendered, logged and counted by the stack, as its own are.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut answer = self.answer_status().into_response();
        answer.extensions_mut().insert(self);
        answer
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};

    use super::*;
    use crate::controls::csrf;
    use crate::testing::Harness;

    fn router() -> axum::Router<crate::State> {
        async fn refuses() -> Result<&'static str, Refusal> {
            Err(UNPROTECTED.refuse("on purpose").with("field", "value"))
        }
        axum::Router::new()
            .route("/ip", get(async |ClientIp(address): ClientIp| address.to_string()))
            .route("/refuses", get(refuses))
            .route("/act", post(async |_: CsrfChecked| "done").get(async |_: CsrfChecked| "done"))
    }

    #[tokio::test]
    async fn facts_of_the_stack() {
        let app = Harness::app("[server]\ntrusted_proxies = [\"192.0.2.0/24\"]", router());
        assert_eq!(app.get("/ip").await.text(), "192.0.2.7");
        let proxied = app.send(http::Method::GET, "/ip", &[("x-forwarded-for", "203.0.113.9")], "").await;
        assert_eq!(proxied.text(), "203.0.113.9", "as the policy believes it, not as it was sent");
    }

    #[tokio::test]
    async fn a_refusal_of_a_handler_is_a_problem_document() {
        let answer = Harness::app("", router()).get("/refuses").await;
        assert_eq!((answer.status(), answer.refusal()), (500, Some(&UNPROTECTED)));
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!answer.text().contains("on purpose"), "{}", answer.text());
    }

    #[tokio::test]
    async fn a_handler_that_wants_the_proof_gets_it_also_where_the_control_would_not_ask() {
        let cross: &[(&str, &str)] = &[("cookie", "s=1"), ("sec-fetch-site", "cross-site")];
        let own: &[(&str, &str)] = &[("cookie", "s=1"), ("sec-fetch-site", "same-origin")];
        let form: &[(&str, &str)] = &[("cookie", "s=1"), ("content-type", "application/x-www-form-urlencoded")];
        for policy in ["", "[csrf]\nmode = \"detect\"", "[[route]]\npath = \"/act\"\ncsrf = { mode = \"off\" }"] {
            let app = Harness::app(policy, router());
            for method in [http::Method::POST, http::Method::GET] {
                let refused = app.send(method.clone(), "/act", cross, "").await;
                assert_eq!(refused.refusal(), Some(&csrf::ORIGIN), "{policy} {method}");
                assert_eq!(app.send(method.clone(), "/act", own, "").await.text(), "done", "{policy} {method}");
                assert_eq!(app.send(method, "/act", &[], "").await.text(), "done", "{policy}: nothing ambient");
            }
            let refused = app.send(http::Method::POST, "/act", form, "csrf_token=x").await;
            assert!(matches!(refused.refusal(), Some(code) if code.control() == "csrf"), "{policy}");
        }
        let off = Harness::app("[csrf]\nmode = \"off\"", router());
        let refused = off.send(http::Method::POST, "/act", own, "").await;
        assert_eq!(refused.refusal(), Some(&csrf::TOKEN_MISSING), "nobody could have checked");
    }

    #[tokio::test]
    async fn outside_of_the_stack_nothing_is_extracted() {
        use tower::ServiceExt as _;
        let alone = router().with_state(crate::State::new());
        let answer = alone.oneshot(http::Request::get("/ip").body(axum::body::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 500);
    }
}
