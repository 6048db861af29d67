//! Notes: made, listed, read, deleted. In memory, a bounded number.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Beyond this the oldest note goes: a demo that is forgotten in a terminal does not grow.
const MAX_NOTES: usize = 1_000;
const MAX_TITLE: usize = 200;
const MAX_TEXT: usize = 10_000;

/// What a client sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoteIn {
    pub(super) title: String,
    #[serde(default)]
    pub(super) text: String,
}

/// A note that is kept.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Note {
    pub(super) id: u64,
    pub(super) title: String,
    text: String,
}

/// All notes.
#[derive(Debug, Clone)]
pub(super) struct Notes(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    notes: BTreeMap<u64, Note>,
    last: u64,
}

/// Why something was not done, as FastAPI says it.
#[derive(Debug)]
pub(super) struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "detail": self.1 }))).into_response()
    }
}

impl Notes {
    /// One note, so that there is something to read.
    pub(super) fn sample() -> Self {
        let notes = Self(Arc::default());
        let _ = notes.add(NoteIn { title: "welcome".into(), text: "the first note was here before you".into() });
        notes
    }

    /// Keeps a note.
    pub(super) fn add(&self, note: NoteIn) -> Result<Note, Failure> {
        let long = |text: &str, most: usize| text.chars().nth(most).is_some();
        if note.title.trim().is_empty() || long(&note.title, MAX_TITLE) || long(&note.text, MAX_TEXT) {
            let why = format!("a note has a title of 1 to {MAX_TITLE} characters and a text of at most {MAX_TEXT}");
            return Err(Failure(StatusCode::UNPROCESSABLE_ENTITY, why));
        }
        let mut kept = self.0.lock();
        kept.last += 1;
        let note = Note { id: kept.last, title: note.title, text: note.text };
        kept.notes.insert(note.id, note.clone());
        if kept.notes.len() > MAX_NOTES {
            kept.notes.pop_first();
        }
        Ok(note)
    }
}

pub(super) async fn list(State(notes): State<Notes>) -> Json<Vec<Note>> {
    Json(notes.0.lock().notes.values().cloned().collect())
}

pub(super) async fn create(
    State(notes): State<Notes>,
    note: Result<Json<NoteIn>, JsonRejection>,
) -> Result<(StatusCode, HeaderMap, Json<Note>), Failure> {
    let Json(note) = note.map_err(|rejection| Failure(rejection.status(), rejection.body_text()))?;
    let note = notes.add(note)?;
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&format!("/notes/{}", note.id)) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, Json(note)))
}

pub(super) async fn read(State(notes): State<Notes>, Path(id): Path<u64>) -> Result<Json<Note>, Failure> {
    notes.0.lock().notes.get(&id).cloned().map(Json).ok_or_else(missing)
}

pub(super) async fn delete(State(notes): State<Notes>, Path(id): Path<u64>) -> Result<StatusCode, Failure> {
    notes.0.lock().notes.remove(&id).map(|_| StatusCode::NO_CONTENT).ok_or_else(missing)
}

fn missing() -> Failure {
    Failure(StatusCode::NOT_FOUND, "no such note".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(title: &str) -> NoteIn {
        NoteIn { title: title.into(), text: String::new() }
    }

    #[test]
    fn the_number_of_notes_is_bounded() {
        let notes = Notes::sample();
        for _ in 0..MAX_NOTES + 5 {
            notes.add(note("x")).unwrap();
        }
        let kept = notes.0.lock();
        assert_eq!(kept.notes.len(), MAX_NOTES);
        assert_eq!(kept.notes.last_key_value().unwrap().0, &(MAX_NOTES as u64 + 6));
    }

    #[test]
    fn a_note_has_a_title_of_reasonable_length() {
        let notes = Notes::sample();
        for bad in ["", "  ", &"é".repeat(201)] {
            assert_eq!(notes.add(note(bad)).unwrap_err().0, StatusCode::UNPROCESSABLE_ENTITY);
        }
        assert!(notes.add(note(&"é".repeat(200))).is_ok());
    }
}
