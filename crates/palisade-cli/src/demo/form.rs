//! A page with a form, as a browser uses it.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::Html;

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

/// Text as HTML shows it, so that a title is never markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_is_never_markup() {
        assert_eq!(super::escape("<b a='\"'>&é"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;é");
    }
}
