//! `palisade session`.

use palisade_identity::Identity;
use palisade_identity::service::SessionInfo;
use serde_json::{Value, json};

use super::super::output::{self, items, print, table, text};
use super::user::one;
use super::{date, find, parse_id, with};
use crate::args::{Global, Session, SessionEnd};
use crate::exit::Done;

/// Sessions that are listed at most, of each sort.
const MOST: u64 = 10_000;

/// Runs one.
pub(crate) fn run(global: &Global, command: &Session) -> anyhow::Result<Done> {
    match command {
        Session::List(list_) => list(global, list_.user.as_deref()),
        Session::End(end_) => end(global, end_),
    }
}

fn list(global: &Global, user: Option<&str>) -> anyhow::Result<Done> {
    let sessions = with(global, async |identity: Identity| match user {
        Some(user) => Ok(identity.sessions_of(find(&identity, user).await?.id).await?),
        None => Ok(identity.list_sessions(MOST).await?),
    })?;
    let list = Value::Array(sessions.iter().map(shown).collect());
    if global.json {
        output::json(&list)?;
        return Ok(Done::Ok);
    }
    let mut rows = vec![["ID", "KIND", "USER", "LAST SEEN", "ADDRESS", "DEVICE"].map(String::from).to_vec()];
    rows.extend(items(&list).iter().map(|one| {
        ["id", "kind", "user", "last_seen", "address", "device"].iter().map(|field| text(&one[*field])).collect()
    }));
    print(&table(&rows, 0));
    Ok(Done::Ok)
}

fn end(global: &Global, end: &SessionEnd) -> anyhow::Result<Done> {
    if let Some(user) = &end.user {
        let ended = with(global, async |identity: Identity| {
            let user = find(&identity, user).await?;
            Ok(identity.end_sessions_of(user.id, None).await?)
        })?;
        return one(global, &json!({ "user": user, "ended": ended }));
    }
    let id = end.id.as_deref().unwrap_or_default();
    let uuid = parse_id(id)?.0;
    let ended = with(global, async |identity: Identity| Ok(identity.end_session_by_id(uuid).await?))?;
    anyhow::ensure!(ended, "there is no session `{id}`; `palisade session list` shows all");
    one(global, &json!({ "id": id, "ended": 1 }))
}

fn shown(session: &SessionInfo) -> Value {
    json!({
        "id": session.id.to_string(),
        "kind": if session.is_browser { "browser" } else { "refresh" },
        "user": session.user.to_string(),
        "created": date(session.created_at),
        "last_seen": date(session.seen_at),
        "ends": date(session.ends_at),
        "address": session.address,
        "device": session.device,
    })
}
