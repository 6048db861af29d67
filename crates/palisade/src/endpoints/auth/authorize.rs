//! `authorize`: a user allows a client to act for them.

use super::At;

/// The origin that a login page leads to, where it goes on to the authorization of a client.
pub(super) async fn target_of(_: &At<'_>, _: &str) -> Option<String> {
    None
}
