//! `palisade role`.

use palisade_identity::Identity;
use palisade_identity::service::Role as Known;
use serde_json::{Value, json};

use super::super::output::{self, items, print, table, text};
use super::user::one;
use super::with;
use crate::args::{Global, Role};
use crate::exit::Done;

/// Runs one.
pub(crate) fn run(global: &Global, command: &Role) -> anyhow::Result<Done> {
    match command {
        Role::List => list(global),
        Role::Add(role) => {
            let made =
                with(global, async |identity: Identity| Ok(identity.add_role(&role.name, &role.permissions).await?))?;
            one(global, &shown(&made))
        }
        Role::Set(role) => {
            let set = with(global, async |identity: Identity| {
                Ok(identity.set_permissions(&role.name, &role.permissions).await?)
            })?;
            one(global, &shown(&set))
        }
        Role::Delete(role) => {
            let gone = with(global, async |identity: Identity| Ok(identity.delete_role(&role.name).await?))?;
            anyhow::ensure!(gone, "there is no role `{}`", role.name);
            one(global, &json!({ "name": role.name, "deleted": true }))
        }
    }
}

fn list(global: &Global) -> anyhow::Result<Done> {
    let roles = with(global, async |identity: Identity| Ok(identity.list_roles().await?))?;
    let list = Value::Array(roles.iter().map(shown).collect());
    if global.json {
        output::json(&list)?;
        return Ok(Done::Ok);
    }
    let mut rows = vec![["ROLE", "PERMISSIONS"].map(String::from).to_vec()];
    rows.extend(items(&list).iter().map(|one| vec![text(&one["name"]), text(&one["permissions"])]));
    print(&table(&rows, 0));
    Ok(Done::Ok)
}

fn shown(role: &Known) -> Value {
    json!({ "name": role.name, "permissions": role.permissions })
}
