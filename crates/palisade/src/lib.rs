//! Palisade makes an HTTP API safe to put on the internet.
//!
//! One [`Policy`](policy::Policy), one stack of controls, two kinds of inner service: a proxy to an application behind,
//! or an axum router in this process. The binary `palisade` is the first, [`Palisade`] both.
//!
//! ```no_run
//! use palisade::prelude::*;
//!
//! #[tokio::main]
//! async fn main() -> palisade::Result<()> {
//!     let router = Router::new().route("/notes", get(|| async { "none yet" }));
//!     Palisade::from_file("palisade.toml")?.serve(router).await
//! }
//! ```

// Without Redis there is no client, and nothing is reached that is written for one.
#![cfg_attr(not(feature = "redis"), allow(unreachable_code, unused_variables))]

mod aside;
pub mod body;
pub mod context;
pub mod control;
pub mod control_socket;
pub mod controls;
mod embed;
pub mod endpoints;
mod error;
pub mod extract;
pub mod gateway;
mod grpc;
pub mod guide;
mod html;
pub mod live;
pub mod mail;
pub mod observe;
pub mod operate;
pub mod policy;
pub mod redis;
pub mod refusal;
pub mod server;
mod shard;
pub mod stack;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod testing_kept;
#[cfg(test)]
mod testing_local;

pub use embed::{Protected, State};
pub use error::{Error, Result};
pub use palisade_store::{Uuid, sea_orm};
pub use server::Palisade;

/// What an application needs most.
pub mod prelude {
    pub use axum::Router;
    pub use axum::routing::{delete, get, patch, post, put};

    pub use crate::context::Context;
    pub use crate::extract::{
        Admin, ApiKey, ClientIp, CsrfChecked, Db, FreshLogin, HasPermission, HasRole, HasScope, Named, OptionalUser,
        Owned, User, UserId,
    };
    pub use crate::refusal::Refusal;
    pub use crate::{Palisade, Uuid};
}
