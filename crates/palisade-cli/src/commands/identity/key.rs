//! `palisade key`.

use palisade_identity::Identity;
use palisade_identity::service::{ApiKeyInfo, NewKey};
use serde_json::{Value, json};

use super::super::output::{self, items, print, say, table, text};
use super::user::one;
use super::{date, dates, find, with};
use crate::args::{Global, Key, KeyCreate};
use crate::exit::Done;

/// Runs one.
pub(crate) fn run(global: &Global, command: &Key) -> anyhow::Result<Done> {
    match command {
        Key::Create(create_) => create(global, create_),
        Key::List(list_) => list(global, list_.user.as_deref()),
        Key::Revoke(key) => {
            let gone = with(global, async |identity: Identity| Ok(identity.revoke_key(None, &key.id).await?))?;
            anyhow::ensure!(gone, "there is no key `{}`; `palisade key list` shows all", key.id);
            one(global, &json!({ "id": key.id, "revoked": true }))
        }
        Key::Rotate(key) => {
            let made = with(global, async |identity: Identity| {
                let (made, info) = identity.rotate_key(None, &key.id).await?;
                Ok((made.reveal(), info))
            })?;
            once(global, made.0.expose(), &made.1)
        }
    }
}

fn create(global: &Global, create: &KeyCreate) -> anyhow::Result<Done> {
    let (key, info) = with(global, async |identity: Identity| {
        let user = find(&identity, &create.user).await?;
        let new = NewKey {
            name: create.name.clone(),
            scopes: create.scopes.clone(),
            expires_in: create.expires.map(|expires| expires.duration()),
            rate: create.rate,
        };
        let (key, info) = identity.create_key(user.id, new).await?;
        Ok((key.reveal(), info))
    })?;
    once(global, key.expose(), &info)
}

/// The one time that the key is shown: on standard output alone, so that it can be piped into a secret store.
fn once(global: &Global, key: &str, info: &ApiKeyInfo) -> anyhow::Result<Done> {
    if global.json {
        let mut value = shown(info);
        value["key"] = key.into();
        output::json(&value)?;
    } else {
        print(&format!("{key}\n"));
        say(&format!("id {}; the key is not shown again\n", info.id));
    }
    Ok(Done::Ok)
}

fn list(global: &Global, user: Option<&str>) -> anyhow::Result<Done> {
    let keys = with(global, async |identity: Identity| match user {
        Some(user) => Ok(identity.keys_of(find(&identity, user).await?.id).await?),
        None => {
            let mut all: Vec<ApiKeyInfo> = Vec::new();
            loop {
                let page = identity.list_keys(all.last().map(|last| last.id.as_str()), 500).await?;
                let over = page.len() < 500;
                all.extend(page);
                if over {
                    return Ok(all);
                }
            }
        }
    })?;
    let list = Value::Array(keys.iter().map(shown).collect());
    if global.json {
        output::json(&list)?;
        return Ok(Done::Ok);
    }
    let mut rows = vec![["ID", "NAME", "USER", "SCOPES", "EXPIRES", "LAST USED"].map(String::from).to_vec()];
    rows.extend(items(&list).iter().map(|one| {
        ["id", "name", "user", "scopes", "expires", "last_used"].iter().map(|field| text(&one[*field])).collect()
    }));
    print(&table(&rows, 0));
    Ok(Done::Ok)
}

fn shown(key: &ApiKeyInfo) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "user": key.user.to_string(),
        "scopes": key.scopes,
        "rate": key.rate,
        "created": date(key.created_at),
        "expires": dates(key.expires_at),
        "last_used": dates(key.used_at),
        "replaced_by": key.successor,
    })
}
