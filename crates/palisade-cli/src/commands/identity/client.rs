//! `palisade client`.

use anyhow::Context as _;
use palisade_identity::Identity;
use palisade_identity::service::{Client as Known, GrantKind, Method, NewClient};
use serde_json::{Value, json};

use super::super::output::{self, items, print, say, table, text};
use super::user::one;
use super::{date, with};
use crate::args::{Client, ClientAdd, Global};
use crate::exit::{Done, Usage};

/// Runs one.
pub(crate) fn run(global: &Global, command: &Client) -> anyhow::Result<Done> {
    match command {
        Client::Add(add_) => add(global, add_),
        Client::List => list(global),
        Client::Revoke(client) => {
            let gone = with(global, async |identity: Identity| Ok(identity.revoke_client(&client.id).await?))?;
            anyhow::ensure!(gone, "there is no client `{}`; `palisade client list` shows all", client.id);
            one(global, &json!({ "client_id": client.id, "revoked": true }))
        }
    }
}

fn add(global: &Global, add: &ClientAdd) -> anyhow::Result<Done> {
    let unknown = |what: &str, name: &str| Usage(format!("there is no {what} `{name}`"));
    let method = Method::named(&add.method).ok_or_else(|| unknown("method", &add.method))?;
    let grants = match add.grants.as_slice() {
        [] => vec![GrantKind::AuthorizationCode, GrantKind::RefreshToken],
        named => named
            .iter()
            .map(|name| GrantKind::named(name).ok_or_else(|| unknown("grant", name)))
            .collect::<Result<_, _>>()?,
    };
    let jwks = match &add.jwks {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| path.display().to_string())?),
    };
    let new = NewClient {
        name: add.name.clone(),
        method,
        jwks,
        redirects: add.redirects.clone(),
        grants,
        scopes: add.scopes.clone(),
        audience: add.audience.clone(),
        trusted: add.trusted,
    };
    let (client, secret) = with(global, async |identity: Identity| Ok(identity.add_client(new).await?))?;
    let mut value = shown(&client);
    match &secret {
        Some(secret) if global.json => value["client_secret"] = secret.expose().as_str().into(),
        Some(secret) => {
            one(global, &value)?;
            print(&format!("client_secret  {}\n", secret.expose()));
            say("the secret is not shown again\n");
            return Ok(Done::Ok);
        }
        None => {}
    }
    one(global, &value)
}

fn list(global: &Global) -> anyhow::Result<Done> {
    let clients = with(global, async |identity: Identity| Ok(identity.list_clients().await?))?;
    let list = Value::Array(clients.iter().map(shown).collect());
    if global.json {
        output::json(&list)?;
        return Ok(Done::Ok);
    }
    let mut rows = vec![["ID", "NAME", "METHOD", "GRANTS", "SCOPES", "REDIRECTS"].map(String::from).to_vec()];
    rows.extend(items(&list).iter().map(|one| {
        ["client_id", "name", "method", "grants", "scopes", "redirects"]
            .iter()
            .map(|field| text(&one[*field]))
            .collect()
    }));
    print(&table(&rows, 0));
    Ok(Done::Ok)
}

fn shown(client: &Known) -> Value {
    json!({
        "client_id": client.id,
        "name": client.name,
        "method": client.method.name(),
        "redirects": client.redirects,
        "grants": client.grants.iter().map(|grant| grant.name()).collect::<Vec<_>>(),
        "scopes": client.scopes,
        "audience": client.audience,
        "trusted": client.trusted,
        "created": date(client.created_at),
    })
}
