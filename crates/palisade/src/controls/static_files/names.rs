//! From a path to the name of a file beneath a root, and the names that are never served.

use crate::controls::integrity::hidden::{ends_with_ignoring_case, is_hidden_name, is_or_packs};

/// Endings that have no business in a directory of public files, besides those that are refused everywhere: databases
/// and their journals, dumps, environments, copies.
const ENDINGS: [&str; 17] = [
    ".env",
    ".db",
    ".db3",
    ".sqlite",
    ".sqlite3",
    "-wal",
    "-shm",
    "-journal",
    ".sql",
    ".dump",
    ".backup",
    ".bkp",
    ".save",
    ".rej",
    ".tmp",
    ".htpasswd",
    ".kdb",
];

/// Directories of version control without a dot.
const FOLDERS: [&str; 4] = ["CVS", "RCS", "SCCS", "_darcs"];

/// The name of a file, as asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Relative to the root, decoded, without a slash at either end; empty for the root itself.
    pub(super) name: Vec<u8>,
    /// The path ended with a slash: a directory's index is meant.
    pub(super) folder: bool,
}

/// Why a path names no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no name of a file.
    NoName,
    /// It is never served.
    Hidden,
}

/// Reads what is left of a normalised path behind the one that the files are served under. `top`: they are served under
/// `/`, where `/.well-known/` is open.
///
/// # Errors
/// Why it names no file. The path was judged before, as it is forwarded; here every name is judged once more, decoded, as
/// it is opened.
pub(super) fn read(rest: &str, top: bool) -> Result<Wanted, Wrong> {
    let folder = rest.ends_with('/');
    let rest = rest.trim_matches('/');
    let mut name = Vec::with_capacity(rest.len());
    for (place, segment) in rest.split('/').filter(|_| !rest.is_empty()).enumerate() {
        let decoded = decode(segment).ok_or(Wrong::NoName)?;
        let text = String::from_utf8_lossy(&decoded);
        if !(top && place == 0 && text == ".well-known") && is_private_name(&text) {
            return Err(Wrong::Hidden);
        }
        if place > 0 {
            name.push(b'/');
        }
        name.extend_from_slice(&decoded);
    }
    Ok(Wanted { name, folder })
}

/// Whether a name is never served from a directory of files.
pub(super) fn is_private_name(name: &str) -> bool {
    is_hidden_name(name)
        || is_or_packs(name, |name| {
            name.starts_with('#') && name.ends_with('#')
                || FOLDERS.contains(&name)
                || ENDINGS.iter().any(|ending| ends_with_ignoring_case(name, ending))
        })
}

/// One segment without its escapes. None where it could not be the name of one file: empty, a slash or a NUL inside.
fn decode(segment: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    (!out.is_empty() && !out.iter().any(|byte| matches!(byte, b'/' | 0))).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_names() {
        for (rest, name, folder) in [
            ("", "", false),
            ("/", "", true),
            ("/a.js", "a.js", false),
            ("/a/b.css", "a/b.css", false),
            ("/a/", "a", true),
            ("/%C3%A9%20x", "é x", false),
            ("/100%25", "100%", false),
            ("/a;v=1", "a;v=1", false),
            ("/%2B", "+", false),
            ("/a~b", "a~b", false),
            ("/ten.txt.gz", "ten.txt.gz", false),
            ("/app.js.br", "app.js.br", false),
            ("/release.tar.xz", "release.tar.xz", false),
            ("/sql.gz", "sql.gz", false),
        ] {
            let wanted = read(rest, false).unwrap();
            assert_eq!((wanted.name.as_slice(), wanted.folder), (name.as_bytes(), folder), "{rest}");
        }
    }

    #[test]
    fn what_is_no_name_or_never_served() {
        for rest in ["/a%2Fb", "/%00", "/a%00.js", "/%2F", "/%", "/%4", "/%zz", "/a//b"] {
            assert_eq!(read(rest, false), Err(Wrong::NoName), "{rest}");
        }
        for rest in [
            "/..",
            "/.",
            "/../x",
            "/a/../b",
            "/%2E%2E/x",
            "/.env",
            "/a/.git/config",
            "/.well-known/x",
            "/x~",
            "/x.Bak",
            "/%23x%23",
            "/prod.env",
            "/palisade.db-wal",
            "/app.sqlite3",
            "/dump.sql",
            "/CVS/Root",
            "/id_rsa",
            "/tls.pem",
            "/dump.sql.gz",
            "/Dump.SQL.Gz",
            "/dump.sql.tar.bz2",
            "/dump%2Esql%2Egz",
            "/server.pem.gz",
            "/prod.env.br",
            "/data.sqlite3.zst",
            "/palisade.db-wal.xz",
            "/app.js.bak.gz",
            "/id_rsa.gz",
            "/site.backup.zip",
            "/%23x%23.gz",
        ] {
            assert_eq!(read(rest, false), Err(Wrong::Hidden), "{rest}");
        }
        assert!(read("/.well-known/security.txt", true).is_ok());
        assert_eq!(read("/a/.well-known/x", true), Err(Wrong::Hidden));
        assert_eq!(read("/.well-known/.git/x", true), Err(Wrong::Hidden));
    }
}
