//! The texts of mail: built in, and replaced by files.
//!
//! A text is `NAME.txt`: a line `Subject: …`, an empty line, the body. Beside it may stand `NAME.html`, the same for readers
//! of HTML. Fields stand in double braces: `{{ name }}`. A field in HTML is escaped; a subject knows `service` alone.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use palisade_base::html::escape;

use crate::message::{Kind, Mail, Value};

/// The largest template, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Why a template is not used.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {what}", path.display())]
pub struct BadTemplate {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// The texts of all kinds.
#[derive(Debug, Clone)]
pub struct Templates {
    service: String,
    texts: HashMap<Kind, Text>,
}

#[derive(Debug, Clone)]
struct Text {
    subject: Vec<Piece>,
    plain: Vec<Piece>,
    html: Option<Vec<Piece>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(String),
}

/// A mail with its text.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    pub(crate) subject: String,
    pub(crate) plain: String,
    pub(crate) html: Option<String>,
}

macro_rules! builtin {
    ($name:literal) => {
        (concat!($name, ".txt"), include_str!(concat!("../templates/", $name, ".txt")))
    };
}

const BUILTIN: [(&str, &str); Kind::ALL.len()] = [
    builtin!("verification"),
    builtin!("already-registered"),
    builtin!("reset"),
    builtin!("email-changed"),
    builtin!("new-device"),
    builtin!("lock-out"),
    builtin!("password-changed"),
];

/// Every built-in HTML is the text in this frame.
const FRAME: &str = include_str!("../templates/frame.html");

impl Templates {
    /// The built-in texts, those replaced that stand in `folder`. `service` is what the mail calls the service.
    ///
    /// # Errors
    /// When a file is not a template, or holds a field that its kind does not have.
    pub fn read(service: &str, folder: Option<&Path>) -> Result<Self, BadTemplate> {
        // It stands in subjects, and comes from the policy.
        let service = service.chars().filter(|c| !c.is_control()).collect();
        if let Some(folder) = folder {
            only_known(folder)?;
        }
        let mut texts = HashMap::new();
        for (kind, (name, text)) in Kind::ALL.into_iter().zip(BUILTIN) {
            let own = match folder {
                Some(folder) => own(folder, kind)?,
                None => None,
            };
            let text = match own {
                Some(own) => own,
                None => builtin(kind, Path::new(name), text)?,
            };
            texts.insert(kind, text);
        }
        Ok(Self { service, texts })
    }

    pub(crate) fn render(&self, mail: &Mail) -> Option<Rendered> {
        let text = self.texts.get(&mail.kind)?;
        Some(Rendered {
            subject: self.fill(&text.subject, mail, str::to_owned),
            plain: self.fill(&text.plain, mail, str::to_owned),
            html: text.html.as_ref().map(|html| self.fill(html, mail, escape)),
        })
    }

    fn fill(&self, pieces: &[Piece], mail: &Mail, escape: fn(&str) -> String) -> String {
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Field(name) if name == "service" => out.push_str(&escape(&self.service)),
                Piece::Field(name) => match mail.fields.iter().find(|(known, _)| known == name) {
                    Some((_, Value::Plain(value))) => out.push_str(&escape(value)),
                    Some((_, Value::Link(link))) => out.push_str(&escape(link.expose())),
                    None => out.push_str("unknown"),
                },
            }
        }
        out
    }
}

/// Refuses files that would replace nothing: a name that is mistyped would go unnoticed until somebody gets the mail.
fn only_known(folder: &Path) -> Result<(), BadTemplate> {
    let bad = |path: PathBuf, what: &str| BadTemplate { path, line: 1, what: what.into() };
    let entries = fs::read_dir(folder).map_err(|error| bad(folder.into(), &error.to_string()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        // Editors leave files of their own behind, with a leading dot.
        if !matches!(end, "txt" | "html") || stem.starts_with('.') {
            continue;
        }
        if !Kind::ALL.iter().any(|kind| kind.name() == stem) {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            return Err(bad(path, &format!("there is no mail of this name, only {}", known.join(", "))));
        }
        if end == "html" && !path.with_extension("txt").exists() {
            return Err(bad(path, "it needs the text beside it: a file of this name that ends in `.txt`"));
        }
    }
    Ok(())
}

fn own(folder: &Path, kind: Kind) -> Result<Option<Text>, BadTemplate> {
    let path = folder.join(format!("{}.txt", kind.name()));
    let Some(text) = file(&path)? else { return Ok(None) };
    let (subject, plain) = plain(kind, &path, &text)?;
    let path = folder.join(format!("{}.html", kind.name()));
    let html = file(&path)?.map(|text| pieces(&text, &path, 1, &allowed(kind))).transpose()?;
    Ok(Some(Text { subject, plain, html }))
}

fn builtin(kind: Kind, path: &Path, text: &str) -> Result<Text, BadTemplate> {
    let (subject, plain) = plain(kind, path, text)?;
    let mut html = Vec::new();
    let mut frame = FRAME.split("BODY");
    html.push(Piece::Literal(frame.next().unwrap_or_default().to_owned()));
    for paragraph in text.split("\n\n").skip(1).map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
        let escaped = escape(paragraph);
        let linked = escaped.replace("{{ link }}", "<a href=\"{{ link }}\">{{ link }}</a>");
        html.extend(pieces(&format!("<p>{}</p>\n", linked.replace('\n', "<br>\n")), path, 1, &allowed(kind))?);
    }
    html.extend(frame.map(|rest| Piece::Literal(rest.to_owned())));
    Ok(Text { subject, plain, html: Some(html) })
}

fn allowed(kind: Kind) -> Vec<&'static str> {
    [&["service"], kind.fields()].concat()
}

fn plain(kind: Kind, path: &Path, text: &str) -> Result<(Vec<Piece>, Vec<Piece>), BadTemplate> {
    let bad = |line: usize, what: &str| BadTemplate { path: path.into(), line, what: what.into() };
    let text = text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").ok_or_else(|| bad(1, "no empty line between subject and body"))?;
    let subject = head.strip_prefix("Subject: ").ok_or_else(|| bad(1, "the first line is not `Subject: …`"))?;
    if subject.contains('\n') {
        return Err(bad(2, "more than a subject above the empty line"));
    }
    if subject.chars().any(char::is_control) {
        return Err(bad(1, "the subject holds a control character"));
    }
    let subject = pieces(subject, path, 1, &["service"])?;
    let body = pieces(body, path, 3, &allowed(kind))?;
    if kind.fields().contains(&"link") && !body.contains(&Piece::Field("link".into())) {
        return Err(bad(3, "the body has no `{{ link }}`, without which this mail is of no use"));
    }
    Ok((subject, body))
}

fn pieces(text: &str, path: &Path, first_line: usize, allowed: &[&str]) -> Result<Vec<Piece>, BadTemplate> {
    let mut out = Vec::new();
    let (mut rest, mut line) = (text, first_line);
    while let Some((before, after)) = rest.split_once("{{") {
        line += before.matches('\n').count();
        let bad = |what: String| BadTemplate { path: path.into(), line, what };
        let (name, after) = after.split_once("}}").ok_or_else(|| bad("`{{` without `}}`".into()))?;
        let name = name.trim();
        if !allowed.contains(&name) {
            let known: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
            let shown: String = name.chars().take(40).collect();
            return Err(bad(format!("there is no field `{shown}` here: {}", known.join(", "))));
        }
        out.push(Piece::Literal(before.to_owned()));
        out.push(Piece::Field(name.to_owned()));
        rest = after;
    }
    out.push(Piece::Literal(rest.to_owned()));
    Ok(out)
}

fn file(path: &Path) -> Result<Option<String>, BadTemplate> {
    let bad = |what: String| BadTemplate { path: path.into(), line: 1, what };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(bad("it is longer than 256 KiB".into()));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use palisade_base::{Secret, Timestamp};

    use super::*;
    use crate::Links;

    fn full(kind: Kind) -> Mail {
        let link = Links::new("https://api.example.com").unwrap().to("/auth/x", &Secret::new("tok".into()));
        let mail = Mail::new(kind, "ada@example.com".parse().unwrap(), "u1").name("<b>ada</b>\r\nBcc: x@example.com");
        let mail = mail.link(link, Duration::from_secs(900)).time(Timestamp(0));
        mail.address("192.0.2.1".parse().unwrap()).device("\"Firefox\" & <script>")
    }

    #[test]
    fn every_kind_has_a_text_that_says_what_it_has() {
        let templates = Templates::read("Example", None).unwrap();
        for kind in Kind::ALL {
            let mail = templates.render(&full(kind)).unwrap();
            let html = mail.html.unwrap();
            assert!(mail.subject.contains("Example") && !mail.subject.contains('{'), "{}", mail.subject);
            assert!(!mail.plain.contains("{{") && !html.contains("{{") && !html.contains("BODY"), "{kind:?}");
            for name in kind.fields() {
                let value = match *name {
                    "link" => "https://api.example.com/auth/x?token=tok",
                    "valid_for" => "15 minutes",
                    "time" => "1970-01-01 00:00 UTC",
                    "address" => "192.0.2.1",
                    "device" => "\"Firefox\" & <script>",
                    _ => "<b>ada</b>  Bcc: x@example.com",
                };
                assert!(mail.plain.contains(value), "{kind:?} {name}: {}", mail.plain);
                assert!(html.contains(&escape(value)), "{kind:?} {name}: {html}");
            }
            assert!(!html.contains("<script>") && !html.contains("<b>ada"), "{html}");
            assert_eq!(
                html.contains("href=\"https://api.example.com/auth/x?token=tok\""),
                kind.fields().contains(&"link")
            );
        }
    }

    #[test]
    fn files_replace_texts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("reset.txt", "Subject: Neues Passwort bei {{service}}\r\n\r\nHallo {{ name }}: {{link}}\r\n");
        write("reset.html", "<style>p { color: red }</style><p>{{ name }} {{ link }}");
        let templates = Templates::read("Exämple", Some(dir.path())).unwrap();
        let mail = templates.render(&full(Kind::Reset)).unwrap();
        assert_eq!(mail.subject, "Neues Passwort bei Exämple");
        assert!(mail.plain.starts_with("Hallo <b>ada</b>") && mail.html.unwrap().contains("&lt;b&gt;ada"));
        assert!(templates.render(&full(Kind::LockOut)).unwrap().subject.contains("Exämple"));
        fs::remove_file(dir.path().join("reset.html")).unwrap();
        let templates = Templates::read("x", Some(dir.path())).unwrap();
        assert!(
            templates.render(&full(Kind::Reset)).unwrap().html.is_none(),
            "not the built-in one beside another text"
        );
    }

    #[test]
    fn bad_templates_are_pointed_at() {
        let dir = tempfile::tempdir().unwrap();
        for (text, said) in [
            ("", "reset.txt:1: no empty line"),
            ("Hello\n\n{{ link }}", "reset.txt:1: the first line is not"),
            ("Subject: a\nBcc: b@example.com\n\n{{ link }}", "reset.txt:2: more than a subject"),
            ("Subject: a\rb\n\n{{ link }}", "control character"),
            ("Subject: {{ name }}\n\n{{ link }}", "reset.txt:1: there is no field `name` here: `service`"),
            ("Subject: a\n\nb\n{{ lnik }}", "reset.txt:4: there is no field `lnik`"),
            ("Subject: a\n\n{{ link", "reset.txt:3: `{{` without `}}`"),
            ("Subject: a\n\nno way", "has no `{{ link }}`"),
        ] {
            fs::write(dir.path().join("reset.txt"), text).unwrap();
            let error = Templates::read("x", Some(dir.path())).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        fs::remove_file(dir.path().join("reset.txt")).unwrap();
        let said = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, "Subject: a\n\n{{ link }}").unwrap();
            let said = Templates::read("x", Some(dir.path())).map(drop).map_err(|error| error.to_string());
            fs::remove_file(path).unwrap();
            said
        };
        assert!(said("rest.txt").unwrap_err().contains("no mail of this name, only verification, "));
        assert!(said("reset.html").unwrap_err().contains("needs the text beside it"));
        assert_eq!((said("readme.md"), said(".#rest.txt")), (Ok(()), Ok(())));
        assert!(Templates::read("x", Some(&dir.path().join("nowhere"))).is_err());
    }
}
