//! A page with a form, as a browser uses it.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::Html;
use palisade_base::html::escape;

use super::notes::{NoteIn, Notes};
use super::pages;

pub(super) async fn show() -> Html<String> {
    page("")
}

pub(super) async fn submit(
    State(notes): State<Notes>,
    note: Result<Form<NoteIn>, FormRejection>,
) -> (StatusCode, Html<String>) {
    match note.map(|Form(note)| notes.add(note)) {
        Ok(Ok(note)) => {
            let said = format!("<p>Note {} is kept: {}</p>", note.id, escape(&note.title));
            (StatusCode::CREATED, page(&said))
        }
        _ => (StatusCode::UNPROCESSABLE_ENTITY, page("<p>A note has a title of 1 to 200 characters.</p>")),
    }
}

fn page(said: &str) -> Html<String> {
    let form = "<form method=\"post\" action=\"/form\">\
        <p><label>Title <input name=\"title\" maxlength=\"200\" required></label></p>\
        <p><label>Text <textarea name=\"text\" maxlength=\"10000\"></textarea></label></p>\
        <p><button>Keep it</button></p></form>";
    Html(pages::page("A note", &format!("{said}{form}")))
}
