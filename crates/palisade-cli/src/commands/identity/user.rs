//! `palisade user`.

use anyhow::bail;
use palisade::controls::Config;
use palisade::policy::values::Listen;
use palisade_identity::Identity;
use palisade_identity::service::{Account, Edit, NewUser, SETUP_LIFE, UserError};
use serde_json::{Value, json};

use super::super::output::{self, items, print, table, text};
use super::super::prompt;
use super::{find, here, import, read, under, with};
use crate::args::{Global, User, UserAdd, UserDelete, UserSet};
use crate::exit::{Done, Usage};

/// Accounts that are read at a time.
const PAGE: u64 = 500;

/// Runs one.
pub(crate) fn run(global: &Global, command: &User) -> anyhow::Result<Done> {
    match command {
        User::Add(add_) => add(global, add_),
        User::List(list_) => list(global, list_.role.as_deref()),
        User::Show(user) => show(global, &user.name),
        User::Set(set_) => set(global, set_),
        User::Disable(user) => enable(global, &user.name, false),
        User::Enable(user) => enable(global, &user.name, true),
        User::Delete(user) => delete(global, user),
        User::Import(import_) => import::run(global, import_),
        User::Export(user) => export(global, &user.name),
        User::SetupLink => setup_link(global),
    }
}

fn setup_link(global: &Global) -> anyhow::Result<Done> {
    let config = read(global)?;
    let Some(admin) = admin_listener(&config) else {
        bail!(Usage("the link is opened at the admin listener, and `server.admin` is off".to_owned()));
    };
    let link = under(&config, async |identity: Identity| Ok(identity.setup_link().await?))?;
    let Some(link) = link else {
        bail!("there is an administrator already; `palisade user list --role admin` shows who it is");
    };
    let link = format!("https://{admin}/setup?link={}", link.reveal().expose());
    if global.json {
        output::json(&json!({ "link": link, "minutes": SETUP_LIFE.as_secs() / 60 }))?;
    } else {
        print(&format!("{link}\n"));
    }
    Ok(Done::Ok)
}

/// Where a browser on this machine finds it.
fn admin_listener(config: &Config) -> Option<String> {
    match config.server.admin {
        Listen::Off => None,
        Listen::At(address) if address.ip().is_unspecified() => Some(format!("localhost:{}", address.port())),
        Listen::At(address) => Some(address.to_string()),
    }
}

fn add(global: &Global, add: &UserAdd) -> anyhow::Result<Done> {
    let password = prompt::new_password(add.password_stdin)?;
    let made = with(global, async |identity: Identity| {
        let new = NewUser { name: &add.name, email: add.email.as_deref(), password: password.expose() };
        identity.add_user(new, &add.roles, add.email_verified, &here()).await.map_err(said)
    })?;
    one(global, &made.to_json())
}

/// A weak password is told as a person would.
fn said(error: UserError) -> anyhow::Error {
    match error {
        UserError::Weak(why) if why.is_empty() => anyhow::anyhow!("the password is too long"),
        UserError::Weak(why) => {
            anyhow::anyhow!("{}", why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
        other => other.into(),
    }
}

fn list(global: &Global, role: Option<&str>) -> anyhow::Result<Done> {
    let list = with(global, async |identity: Identity| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = identity.list_users(after, PAGE).await?;
            after = page.last().map(|last| last.id);
            let over = (page.len() as u64) < PAGE;
            all.extend(page.iter().filter(|one| role.is_none_or(|role| one.has_role(role))).map(Account::to_json));
            if over {
                return Ok(Value::Array(all));
            }
        }
    })?;
    if global.json {
        output::json(&list)?;
        return Ok(Done::Ok);
    }
    let mut rows = vec![["NAME", "E-MAIL", "ROLES", "STATE", "ID"].map(String::from).to_vec()];
    for one in items(&list) {
        let state = if one["disabled"] == false { "enabled" } else { "disabled" };
        rows.push(vec![
            text(&one["username"]),
            text(&one["email"]),
            text(&one["roles"]),
            state.into(),
            text(&one["id"]),
        ]);
    }
    print(&table(&rows, 0));
    Ok(Done::Ok)
}

fn show(global: &Global, name: &str) -> anyhow::Result<Done> {
    let shown = with(global, async |identity: Identity| Ok(find(&identity, name).await?.to_json()))?;
    one(global, &shown)
}

fn set(global: &Global, set: &UserSet) -> anyhow::Result<Done> {
    let changed = with(global, async |identity: Identity| {
        let known = find(&identity, &set.user.name).await?;
        let edit = Edit {
            name: set.rename.as_deref(),
            email: match (&set.email, set.no_email) {
                (Some(email), _) => Some(Some(email)),
                (None, true) => Some(None),
                (None, false) => None,
            },
            email_verified: set.email_verified,
            roles: (set.no_roles || !set.roles.is_empty()).then_some(set.roles.as_slice()),
            enabled: None,
        };
        Ok(identity.edit_user(known.id, edit).await?.to_json())
    })?;
    one(global, &changed)
}

fn enable(global: &Global, name: &str, enabled: bool) -> anyhow::Result<Done> {
    let changed = with(global, async |identity: Identity| {
        let known = find(&identity, name).await?;
        let edit = Edit { enabled: Some(enabled), ..Edit::default() };
        Ok(identity.edit_user(known.id, edit).await?.to_json())
    })?;
    one(global, &changed)
}

fn delete(global: &Global, delete: &UserDelete) -> anyhow::Result<Done> {
    let gone = with(global, async |identity: Identity| {
        let known = find(&identity, &delete.user.name).await?;
        if !delete.yes && !prompt::confirm(&format!("delete `{}` with all that belongs to it?", known.name))? {
            bail!("nothing was deleted");
        }
        identity.delete_user(known.id).await?;
        Ok(json!({ "id": known.id.to_string(), "username": known.name, "deleted": true }))
    })?;
    one(global, &gone)
}

fn export(global: &Global, name: &str) -> anyhow::Result<Done> {
    let exported = with(global, async |identity: Identity| {
        let known = find(&identity, name).await?;
        Ok(identity.export_user(known.id).await?)
    })?;
    output::json(&exported.unwrap_or_default())?;
    Ok(Done::Ok)
}

/// One thing, as JSON or as its fields.
pub(super) fn one(global: &Global, value: &Value) -> anyhow::Result<Done> {
    if global.json {
        output::json(value)?;
        return Ok(Done::Ok);
    }
    let fields = value.as_object().into_iter().flatten();
    let shown = fields.filter(|(_, value)| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    let rows: Vec<Vec<String>> = shown.map(|(name, value)| vec![name.clone(), text(value)]).collect();
    print(&table(&rows, 0));
    Ok(Done::Ok)
}
