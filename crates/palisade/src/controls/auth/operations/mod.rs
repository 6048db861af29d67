//! `access = "openapi"`: the application's own document says whom its operations are for.
//!
//! Guide section 1; threats 13. The document is read from the application, directly and within limits, or from a file. It
//! can only tighten: without it nothing passes, what is not in it does not pass, and what it opens waits in production
//! until `palisade openapi accept`. The last good one is kept under `server.state`, for the next start.

mod follow;
mod requirement;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use palisade_openapi::Document;
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) use self::follow::follow;
pub(super) use self::requirement::judge;
use self::table::Remembered;
pub(crate) use self::table::{Found, Table};
use crate::control_socket::write_private;
use crate::live::Handle;
use crate::observe::{Log, event};
use crate::stack::Live;

/// What is known of one application; outlives policies.
#[derive(Debug)]
pub(crate) struct Known {
    table: ArcSwapOption<Table>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The document in force.
    text: Vec<u8>,
    remembered: Remembered,
    /// Why the document could not be read the last time.
    why: Option<String>,
    opened: bool,
}

/// Where an application's document and what is remembered of it are kept.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The application, as the policy calls it.
    pub(crate) name: String,
    /// `server.state`.
    pub(crate) state: PathBuf,
    /// Whether what opens waits.
    pub(crate) waits: bool,
}

impl Place {
    fn file(&self, ending: &str) -> PathBuf {
        // The name of a section may be any text.
        let plain = self.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let encoded = || format!("x.{}", data_encoding::HEXLOWER.encode(self.name.as_bytes()));
        let name = if plain { self.name.clone() } else { encoded() };
        self.state.join("openapi").join(format!("{name}.{ending}"))
    }
}

impl Default for Known {
    fn default() -> Self {
        Self { table: ArcSwapOption::empty(), held: Mutex::default() }
    }
}

impl Known {
    /// The operations in force; none where no document was ever read.
    pub(crate) fn table(&self) -> Option<Arc<Table>> {
        self.table.load_full()
    }

    /// Takes up what an earlier run kept. Once.
    pub(crate) fn open(&self, place: &Place, log: &Log) {
        let mut held = self.held.lock();
        if std::mem::replace(&mut held.opened, true) {
            return;
        }
        match read(&place.file("access.json")) {
            Ok(None) => {}
            Ok(Some(text)) => match serde_json::from_slice(&text) {
                Ok(remembered) => held.remembered = remembered,
                // Then everything that opens waits once more.
                Err(why) => complain(place, log, &format!("what was accepted is lost: {why}")),
            },
            Err(why) => complain(place, log, &why.to_string()),
        }
        match read(&place.file("json")) {
            Ok(None) => {}
            Ok(Some(text)) => {
                if let Err(why) = self.take(&mut held, text, place, log) {
                    complain(place, log, &why);
                }
            }
            Err(why) => complain(place, log, &why.to_string()),
        }
    }

    /// Puts a document in force, if it is another one.
    ///
    /// # Errors
    /// Why it cannot be used; the one before stays.
    pub(crate) fn put(&self, text: &[u8], place: &Place, log: &Log) -> Result<(), String> {
        let mut held = self.held.lock();
        if held.text == text && self.table.load().is_some() {
            held.why = None;
            return Ok(());
        }
        let outcome = self.take(&mut held, text.to_vec(), place, log);
        match &outcome {
            Ok(()) => {
                held.why = None;
                keep(place, log, "json", &held.text);
            }
            Err(why) => self.note(&mut held, why, place, log),
        }
        outcome
    }

    /// Notes that no document could be had.
    pub(crate) fn failed(&self, why: &str, place: &Place, log: &Log) {
        self.note(&mut self.held.lock(), why, place, log);
    }

    /// Says it once, not every few seconds.
    fn note(&self, held: &mut Held, why: &str, place: &Place, log: &Log) {
        if held.why.as_deref() != Some(why) {
            complain(place, log, why);
            held.why = Some(why.to_owned());
        }
    }

    fn take(&self, held: &mut Held, text: Vec<u8>, place: &Place, log: &Log) -> Result<(), String> {
        let document = Document::parse(&text).map_err(|why| why.to_string())?;
        let before = held.remembered.clone();
        let table = Table::new(document, &mut held.remembered, place.waits);
        if held.remembered != before {
            keep_remembered(place, log, &held.remembered);
        }
        event::OPENAPI
            .line(log)
            .str("upstream", &place.name)
            .show("operations", table.shown().len())
            .show("waiting", table.waiting().len());
        for operation in table.waiting().iter().take(100) {
            event::OPENAPI_WAITS.line(log).str("upstream", &place.name).str("operation", operation);
        }
        held.text = text;
        self.table.store(Some(Arc::new(table)));
        Ok(())
    }

    /// Accepts what waits.
    ///
    /// # Errors
    /// Where nothing of that name waits, or what is accepted cannot be kept.
    pub(crate) fn accept(&self, names: &[String], place: &Place, log: &Log, by: &str) -> Result<Vec<String>, String> {
        let mut held = self.held.lock();
        let table = self.table().ok_or("no document was read yet")?;
        let mut remembered = held.remembered.clone();
        let accepted = table.accept(names, &mut remembered)?;
        // Kept first: what is forgotten at the next start was not accepted.
        write(place, "access.json", &serde_json::to_vec(&remembered).unwrap_or_default())
            .map_err(|why| why.to_string())?;
        held.remembered = remembered;
        let text = std::mem::take(&mut held.text);
        self.take(&mut held, text, place, log)?;
        for operation in &accepted {
            event::OPENAPI_ACCEPTED.line(log).str("upstream", &place.name).str("operation", operation).str("by", by);
        }
        Ok(accepted)
    }

    /// For `palisade openapi access`.
    pub(crate) fn shown(&self, place: &Place) -> Value {
        let held = self.held.lock();
        let table = self.table();
        json!({
            "upstream": place.name,
            "read": table.is_some(),
            "problem": held.why,
            "operations": table.map(|table| table.shown()).unwrap_or_default(),
        })
    }
}

/// For `palisade openapi access`: every application whose document is read.
pub(crate) fn shown(handle: &Handle) -> Result<Value, String> {
    let live = handle.live();
    Ok(documents(&live)?.iter().map(|(_, known, place)| known.shown(place)).collect())
}

/// For `palisade openapi accept`.
pub(crate) fn accept(handle: &Handle, upstream: Option<&str>, names: &[String], by: &str) -> Result<Value, String> {
    let live = handle.live();
    let documents = documents(&live)?;
    let wanted = upstream.unwrap_or("upstream");
    let (_, known, place) = documents
        .iter()
        .find(|(_, _, place)| place.name == wanted)
        .ok_or_else(|| format!("there is no application `{wanted}` whose document is read"))?;
    let accepted = known.accept(names, place, handle.log(), by)?;
    Ok(json!({ "upstream": place.name, "accepted": accepted }))
}

fn documents(live: &Live) -> Result<Vec<(u16, Arc<Known>, Place)>, String> {
    let auth = live.policy.controls().auth.control.as_ref();
    let documents = auth.map(|auth| auth.documents(&live.policy)).unwrap_or_default();
    if documents.is_empty() {
        return Err("no document decides anything here: `access = \"openapi\"` is not in `[auth]`".into());
    }
    Ok(documents)
}

fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(file) {
        Ok(data) if data.len() > 2 * palisade_openapi::MAX_BYTES as u64 => {
            Err(io::Error::other("larger than it may be"))
        }
        Ok(_) => fs::read(file).map(Some),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

fn write(place: &Place, ending: &str, bytes: &[u8]) -> io::Result<()> {
    write_private(&place.file(ending), bytes)
}

fn keep(place: &Place, log: &Log, ending: &str, bytes: &[u8]) {
    if let Err(why) = write(place, ending, bytes) {
        complain(place, log, &format!("it cannot be kept for the next start: {why}"));
    }
}

fn keep_remembered(place: &Place, log: &Log, remembered: &Remembered) {
    keep(place, log, "access.json", &serde_json::to_vec(remembered).unwrap_or_default());
}

fn complain(place: &Place, log: &Log, why: &str) {
    event::OPENAPI_AWAY.line(log).str("upstream", &place.name).str("reason", why);
}
