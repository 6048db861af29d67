//! `palisade secret`: the secret store, from the command line. Values come from a prompt or standard input, and go to
//! standard output and nowhere else.

use anyhow::bail;
use palisade::operate::rfc3339;
use palisade::policy;
use palisade_base::Clock;
use palisade_identity::rings::{Name, Rotation, rotate};
use palisade_vault::{Provider, Store};
use serde_json::{Value, json};

use super::output::{self, print, table};
use super::{policy as files, prompt};
use crate::args::{Global, Secret, SecretName, SecretRotate};
use crate::exit::{Done, Usage};

/// Does what was asked for with the secret store of the policy.
pub(crate) fn run(global: &Global, secret: &Secret) -> anyhow::Result<Done> {
    let config = palisade::live::read(&files::sources(global)).map_err(palisade::Error::Policy)?.config;
    let secrets = policy::secrets::provider(&config);
    match secret {
        Secret::Set(SecretName { name }) => {
            let store = writable(secrets.as_ref(), name)?;
            // Before the value is typed, which would be in vain.
            palisade_vault::check_name(name).map_err(|error| Usage(error.to_string()))?;
            if Name::of_secret(name).is_some() && store.get(name).is_ok() {
                return Err(Usage(format!(
                    "`{name}` is a key that Palisade makes for itself, and replacing it ends everything that it made: \
                     `palisade secret rotate {name}` brings in a new one; to really put one of your own, `palisade \
                     secret remove {name}` first"
                ))
                .into());
            }
            store.set(name, prompt::secret(&format!("value of `{name}`"))?)?;
            say(global, json!({ "name": name, "set": true }), &format!("stored as {}\n", store.place(name)))
        }
        Secret::Get(SecretName { name }) => {
            let value = secrets.get(name)?;
            if global.json {
                output::json(&json!({ "name": name, "value": value.expose() }))?;
            } else {
                print(&format!("{}\n", value.expose()));
            }
            Ok(Done::Ok)
        }
        Secret::List => list(global, secrets.as_ref()),
        Secret::Remove(SecretName { name }) => {
            let store = writable(secrets.as_ref(), name)?;
            if !store.remove(name)? {
                bail!("there is no secret `{name}`: `palisade secret list` shows those that there are");
            }
            say(global, json!({ "name": name, "removed": true }), &format!("removed `{name}`\n"))
        }
        Secret::Rotate(asked) => replace(global, secrets.as_ref(), asked, config.secrets.lead.duration()),
        Secret::Init => {
            let key = policy::secrets::key_file(&config);
            let Some(path) = key.path().map(std::path::Path::to_owned) else {
                return Err(Usage(
                    "set `PALISADE_SECRETS_KEY_FILE` to where the key shall be, such as `/etc/palisade/secrets.key`, for \
                     this command and for the server"
                        .into(),
                )
                .into());
            };
            let made = key.make()?;
            let said = if made { "made" } else { "is there already, and stays:" };
            let text = format!("{said} `{}`: keep a copy where the secrets are not\n", path.display());
            say(global, json!({ "key_file": path, "made": made }), &text)
        }
    }
}

fn list(global: &Global, secrets: &dyn Provider) -> anyhow::Result<Done> {
    let listed = writable(secrets, "NAME")?.list()?;
    if global.json {
        let items = listed.iter().map(
            |secret| json!({ "name": secret.name, "changed": rfc3339(secret.changed), "versions": secret.versions }),
        );
        output::json(&Value::Array(items.collect()))?;
    } else if listed.is_empty() {
        print("no secrets yet\n");
    } else {
        let rows = listed.iter().map(|secret| {
            let versions = secret.versions.map_or_else(String::new, |count| match count {
                1 => "1 version".to_owned(),
                count => format!("{count} versions"),
            });
            vec![secret.name.clone(), rfc3339(secret.changed), versions]
        });
        print(&table(&rows.collect::<Vec<_>>(), 0));
    }
    Ok(Done::Ok)
}

fn replace(
    global: &Global,
    secrets: &dyn Provider,
    asked: &SecretRotate,
    lead: std::time::Duration,
) -> anyhow::Result<Done> {
    let Some(name) = Name::of_secret(&asked.name) else {
        let known = Name::ALL.map(|name| format!("`{}`", name.secret())).join(", ");
        return Err(Usage(format!(
            "`{0}` is none of the keys that Palisade makes for itself ({known}): `palisade secret set {0}` stores a new \
             value",
            asked.name
        ))
        .into());
    };
    let store = writable(secrets, &asked.name)?;
    let lead = asked.lead.map_or(lead, |lead| lead.duration());
    let done = rotate(store, name, &Rotation { algorithm: None, lead, revoke: asked.revoke }, Clock::real().now())?;
    let from = rfc3339(done.from);
    let text =
        format!("`{}` has a new version `{}`, used from {from} on; versions: {}\n", asked.name, done.id, done.versions);
    say(global, json!({ "name": asked.name, "id": done.id, "from": from, "versions": done.versions }), &text)
}

/// The store behind the provider, or why there is none.
fn writable<'a>(secrets: &'a dyn Provider, name: &str) -> anyhow::Result<&'a dyn Store> {
    secrets.store().ok_or_else(|| {
        let place = secrets.place(name);
        Usage(format!(
            "Palisade cannot list or write the place that `secrets.provider` names; a secret is put into {place} by \
             whoever owns it"
        ))
        .into()
    })
}

fn say(global: &Global, value: Value, text: &str) -> anyhow::Result<Done> {
    if global.json {
        output::json(&value)?;
    } else {
        print(text);
    }
    Ok(Done::Ok)
}
