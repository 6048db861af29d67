//! Accounts of another application, with the hashes of their passwords: `palisade user import`.
//!
//! CSV with a header, or JSON lines. Nothing is lost: each account is imported, known already, or reported with its line
//! and the reason. Run again, it goes on where it ended, for accounts that are there are known by the application's id
//! (or name) and skipped. Hashes that would cost too much to check are refused here, not at the first login (threats, 30).

mod csv;
mod entry;

use std::collections::{HashMap, HashSet};
use std::io::BufRead;

use palisade_store::{Error as StoreError, Tx, Unique, roles, users};
use serde_json::Value;

use self::csv::{BadRecord, Records};
use self::entry::{Columns, Entry};
use super::error::Trouble;
use super::names::{BadEmail, BadName, Email, Name};
use super::{Identity, new_id};
use crate::password::{BadHash, Stored};

pub use self::entry::Field;

/// Accounts that are stored in one transaction.
const BATCH: usize = 200;
/// The longest line of JSON, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// The longest id of an application.
const MAX_APP_ID: usize = 255;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

/// How accounts are to be imported.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// How the file is written.
    pub format: Format,
    /// Columns that the names do not tell.
    pub columns: Vec<(String, Field)>,
    /// Roles that every account gets, beside those that the file names.
    pub roles: Vec<String>,
    /// The role of accounts that the file calls superusers; `None`: none, for who writes an export decides a lot then.
    pub superusers: Option<String>,
    /// Look at everything and store nothing.
    pub dry_run: bool,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Accounts of the file.
    pub read: u64,
    /// Those that are stored now; with `dry_run`, that would be.
    pub imported: u64,
    /// Those that were there already.
    pub known: u64,
    /// Those that were not imported.
    pub failed: u64,
    /// Those of the imported ones that have no usable password: they log in once they have set one.
    pub without_password: u64,
}

/// What happens during an import.
#[derive(Debug)]
pub enum ImportEvent<'a> {
    /// So far.
    Progress {
        /// Bytes of the file.
        bytes: u64,
        /// Accounts.
        report: ImportReport,
    },
    /// An account was not imported.
    Failed {
        /// Where it begins.
        line: u64,
        /// The name it has in the file, if it has one.
        name: Option<&'a str>,
        /// Why.
        why: &'a ImportFailure,
    },
}

/// Why an account was not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportFailure {
    /// The line cannot be read.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// The line is no JSON object, or a member has the wrong type.
    #[error("{0}")]
    Json(String),
    /// A field cannot be read.
    #[error("{0}")]
    Value(String),
    /// Neither a name nor an address.
    #[error("there is neither a name nor an e-mail address")]
    NoName,
    /// The name is none.
    #[error("the name: {0}")]
    Name(#[from] BadName),
    /// The address is none.
    #[error("the e-mail address: {0}")]
    Email(#[from] BadEmail),
    /// The id of the application is too long.
    #[error("the application's id is longer than {MAX_APP_ID} bytes, or holds controls")]
    AppId,
    /// The hash cannot be used.
    #[error("the password's hash: {0}")]
    Hash(#[from] BadHash),
    /// No such role.
    #[error("there is no role `{0}`: make it with `palisade role add {0}`")]
    NoRole(String),
    /// Somebody else has the name.
    #[error("another account has this name")]
    NameTaken,
    /// Somebody else has the address.
    #[error("another account has this e-mail address")]
    EmailTaken,
    /// Somebody else has the id.
    #[error("another account has this id of the application")]
    AppIdTaken,
}

/// Why an import ended early. What was stored stays, and running it again goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The header says too little.
    #[error("the header names no column for {0}; say which it is with `--column NAME={0}`")]
    Header(&'static str),
    /// A role for everybody is not there.
    #[error("there is no role `{0}`")]
    NoRole(String),
    /// The database.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Trouble(error.into())
    }
}

/// An account that can be stored.
struct Ready {
    line: u64,
    row: users::Model,
    roles: Vec<String>,
}

/// What became of one.
enum Done {
    Imported,
    Known,
    Failed(ImportFailure),
}

/// Where accounts come from.
enum Source<R> {
    Csv(Records<R>, Columns),
    JsonLines { from: R, line: u64, bytes: u64, chosen: Vec<(String, Field)> },
}

impl<R: BufRead> Source<R> {
    fn open(from: R, options: &ImportOptions) -> Result<Self, ImportError> {
        if options.format == Format::JsonLines {
            return Ok(Self::JsonLines { from, line: 0, bytes: 0, chosen: options.columns.clone() });
        }
        let mut records = Records::new(from);
        let columns = match records.next()? {
            Some((_, Ok(header))) => Columns::of(&header, &options.columns),
            _ => Columns::default(),
        };
        if !columns.has(Field::Name) && !columns.has(Field::Email) {
            return Err(ImportError::Header("username"));
        }
        if !columns.has(Field::Hash) {
            return Err(ImportError::Header("password"));
        }
        Ok(Self::Csv(records, columns))
    }

    const fn bytes(&self) -> u64 {
        match self {
            Self::Csv(records, _) => records.bytes(),
            Self::JsonLines { bytes, .. } => *bytes,
        }
    }

    fn next(&mut self) -> std::io::Result<Option<(u64, Result<Entry, ImportFailure>)>> {
        match self {
            Self::Csv(records, columns) => {
                let Some((line, record)) = records.next()? else { return Ok(None) };
                let entry =
                    record.map_err(Into::into).and_then(|record| columns.entry(&record).map_err(ImportFailure::Value));
                Ok(Some((line, entry)))
            }
            Self::JsonLines { from, line, bytes, chosen } => loop {
                let mut text = Vec::new();
                let (read, fits) = csv::line(from, &mut text, MAX_LINE)?;
                if read == 0 {
                    return Ok(None);
                }
                *line += 1;
                *bytes += read;
                if !fits {
                    return Ok(Some((*line, Err(BadRecord::Long.into()))));
                }
                if text.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some((*line, object(&text, chosen))));
            },
        }
    }
}

/// An account out of a JSON object.
fn object(text: &[u8], chosen: &[(String, Field)]) -> Result<Entry, ImportFailure> {
    let bad = |what: &str| ImportFailure::Json(what.to_owned());
    let value: Value = serde_json::from_slice(text).map_err(|why| ImportFailure::Json(format!("no JSON: {why}")))?;
    let members = value.as_object().ok_or_else(|| bad("the line is no JSON object"))?;
    let mut entry = Entry::default();
    let field = |name: &str| {
        chosen.iter().find(|(known, _)| known == name).map(|(_, field)| *field).or_else(|| Field::named(name))
    };
    for (name, value) in members {
        let Some(field) = field(name) else { continue };
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(items) if field == Field::Roles => {
                let words: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                words.ok_or_else(|| bad("`roles` is a list of texts"))?.join(" ")
            }
            _ => return Err(ImportFailure::Json(format!("`{name}` has a type that cannot be read"))),
        };
        entry.set(field, &text).map_err(ImportFailure::Value)?;
    }
    Ok(entry)
}

impl Identity {
    /// Imports the accounts of a file. The reader is read from in between; it is for commands.
    ///
    /// # Errors
    /// [`ImportError`]: what was stored until then stays.
    pub async fn import_users(
        &self,
        from: impl BufRead + Send,
        options: &ImportOptions,
        on: &mut (dyn FnMut(ImportEvent<'_>) + Send),
    ) -> Result<ImportReport, ImportError> {
        let known_roles: Vec<String> = roles::list(self.store()).await?.into_iter().map(|role| role.name).collect();
        let wanted = options.roles.iter().chain(&options.superusers);
        if let Some(missing) = wanted.into_iter().find(|role| !known_roles.contains(role)) {
            return Err(ImportError::NoRole(missing.clone()));
        }
        let mut source = Source::open(from, options)?;
        let mut report = ImportReport::default();
        let mut batch = Vec::with_capacity(BATCH);
        let mut dry = options.dry_run.then(Dry::default);
        loop {
            let next = source.next()?;
            let over = next.is_none();
            if let Some((line, entry)) = next {
                report.read += 1;
                let name = entry.as_ref().ok().and_then(|entry| entry.name.clone().or_else(|| entry.email.clone()));
                match entry.and_then(|entry| self.ready(line, entry, options, &known_roles)) {
                    Ok(ready) => batch.push(ready),
                    Err(why) => {
                        report.failed += 1;
                        on(ImportEvent::Failed { line, name: name.as_deref(), why: &why });
                    }
                }
            }
            if batch.len() == BATCH || (over && !batch.is_empty()) {
                self.import_batch(&batch, &mut dry, &mut report, on).await?;
                batch.clear();
                on(ImportEvent::Progress { bytes: source.bytes(), report });
            }
            if over {
                on(ImportEvent::Progress { bytes: source.bytes(), report });
                return Ok(report);
            }
        }
    }

    fn ready(
        &self,
        line: u64,
        entry: Entry,
        options: &ImportOptions,
        known_roles: &[String],
    ) -> Result<Ready, ImportFailure> {
        let email = entry.email.as_deref().map(Email::parse).transpose()?;
        let name = match (&entry.name, &email) {
            (Some(name), _) => Name::parse(name)?,
            // fastapi-users has no names: the address is one.
            (None, Some(email)) => Name::parse(email.shown())?,
            (None, None) => return Err(ImportFailure::NoName),
        };
        super::users::check_at(&name, email.as_ref())?;
        if entry.app_id.as_ref().is_some_and(|id| id.len() > MAX_APP_ID || id.chars().any(char::is_control)) {
            return Err(ImportFailure::AppId);
        }
        // Django writes `!` and random letters where no password was ever set.
        let password = entry.hash.filter(|hash| !hash.starts_with('!') && hash != "*");
        if let Some(hash) = &password {
            Stored::parse(hash)?;
        }
        let mut roles = entry.roles;
        roles.extend(options.roles.iter().cloned());
        if entry.superuser {
            roles.extend(options.superusers.iter().cloned());
        }
        roles.sort_unstable();
        roles.dedup();
        if let Some(missing) = roles.iter().find(|role| !known_roles.contains(role)) {
            return Err(ImportFailure::NoRole(missing.clone()));
        }
        let now = self.now();
        let row = users::Model {
            id: new_id(now),
            app_id: entry.app_id,
            name: name.shown().to_owned(),
            name_key: name.key().to_owned(),
            email_verified_at: (entry.verified == Some(true) && email.is_some()).then_some(now.0),
            email: email.as_ref().map(|email| email.shown().to_owned()),
            email_key: email.as_ref().map(|email| email.key().to_owned()),
            password,
            disabled_at: (entry.enabled == Some(false)).then_some(now.0),
            ..users::new(now.0)
        };
        Ok(Ready { line, row, roles })
    }

    async fn import_batch(
        &self,
        batch: &[Ready],
        dry: &mut Option<Dry>,
        report: &mut ImportReport,
        on: &mut (dyn FnMut(ImportEvent<'_>) + Send),
    ) -> Result<(), ImportError> {
        let dry_run = dry.is_some();
        let verdicts = match self.try_batch(batch, dry_run).await {
            // Somebody registered one of these names in the same moment: one at a time, then.
            Err(StoreError::Conflict(_) | StoreError::Orphan) => {
                let mut verdicts = Vec::with_capacity(batch.len());
                for ready in batch {
                    match self.try_batch(std::slice::from_ref(ready), dry_run).await {
                        Ok(one) => verdicts.extend(one),
                        Err(StoreError::Conflict(which)) => verdicts.push(Done::Failed(taken(which))),
                        Err(StoreError::Orphan) => {
                            let role = ready.roles.first().cloned().unwrap_or_default();
                            verdicts.push(Done::Failed(ImportFailure::NoRole(role)));
                        }
                        Err(other) => return Err(other.into()),
                    }
                }
                verdicts
            }
            other => other?,
        };
        for (ready, done) in batch.iter().zip(verdicts) {
            let done = match (done, &mut *dry) {
                (Done::Imported, Some(dry)) => dry.judge(&ready.row),
                (done, _) => done,
            };
            match done {
                Done::Imported => {
                    report.imported += 1;
                    report.without_password += u64::from(ready.row.password.is_none());
                }
                Done::Known => report.known += 1,
                Done::Failed(why) => {
                    report.failed += 1;
                    on(ImportEvent::Failed { line: ready.line, name: Some(&ready.row.name), why: &why });
                }
            }
        }
        Ok(())
    }

    async fn try_batch(&self, batch: &[Ready], dry_run: bool) -> Result<Vec<Done>, StoreError> {
        let tx = self.store().begin().await?;
        let mut verdicts = Vec::with_capacity(batch.len());
        for ready in batch {
            let done = judge(&tx, &ready.row).await?;
            if matches!(done, Done::Imported) {
                users::insert(&tx, ready.row.clone()).await?;
                if !ready.roles.is_empty() {
                    roles::set(&tx, ready.row.id, &ready.roles).await?;
                }
            }
            verdicts.push(done);
        }
        if !dry_run {
            self.apply(tx.commit().await?);
        }
        Ok(verdicts)
    }
}

/// What a dry run would have made so far: its batches leave nothing in the database that a later one could meet.
#[derive(Default)]
struct Dry {
    /// The name of each by the application's id, and id and address of each by its name.
    names: HashMap<String, String>,
    accounts: HashMap<String, (Option<String>, Option<String>)>,
    emails: HashSet<String>,
}

impl Dry {
    /// As [`judge`], of what came before in the same run.
    fn judge(&mut self, row: &users::Model) -> Done {
        if let Some(name) = row.app_id.as_ref().and_then(|id| self.names.get(id)) {
            return if *name == row.name_key { Done::Known } else { Done::Failed(ImportFailure::AppIdTaken) };
        }
        if let Some((id, email)) = self.accounts.get(&row.name_key) {
            let same = *id == row.app_id && *email == row.email_key;
            return if same { Done::Known } else { Done::Failed(ImportFailure::NameTaken) };
        }
        if row.email_key.as_ref().is_some_and(|email| self.emails.contains(email)) {
            return Done::Failed(ImportFailure::EmailTaken);
        }
        if let Some(id) = &row.app_id {
            self.names.insert(id.clone(), row.name_key.clone());
        }
        self.emails.extend(row.email_key.clone());
        self.accounts.insert(row.name_key.clone(), (row.app_id.clone(), row.email_key.clone()));
        Done::Imported
    }
}

/// Whether an account is new, the same as one that is there, or in the way of another. The password is not compared: it
/// may have been upgraded or changed since.
async fn judge(tx: &Tx, row: &users::Model) -> Result<Done, StoreError> {
    let by_id = match &row.app_id {
        Some(id) => users::by_app_id(tx, id).await?,
        None => None,
    };
    if let Some(known) = by_id {
        return Ok(if known.name_key == row.name_key { Done::Known } else { Done::Failed(ImportFailure::AppIdTaken) });
    }
    if let Some(known) = users::by_name(tx, &row.name_key).await? {
        let same = known.app_id == row.app_id && known.email_key == row.email_key;
        return Ok(if same { Done::Known } else { Done::Failed(ImportFailure::NameTaken) });
    }
    if let Some(email) = &row.email_key
        && users::by_email(tx, email).await?.is_some()
    {
        return Ok(Done::Failed(ImportFailure::EmailTaken));
    }
    Ok(Done::Imported)
}

const fn taken(which: Unique) -> ImportFailure {
    match which {
        Unique::Email => ImportFailure::EmailTaken,
        Unique::AppId => ImportFailure::AppIdTaken,
        _ => ImportFailure::NameTaken,
    }
}
