//! Names that no site serves on purpose: dotfiles, version control, backups, keys.

/// Endings of copies that editors and people leave behind, and of keys.
const ENDINGS: [&str; 14] = [
    ".bak",
    ".old",
    ".orig",
    ".swp",
    ".swo",
    ".swn",
    ".pem",
    ".key",
    ".p12",
    ".pfx",
    ".jks",
    ".keystore",
    ".kdbx",
    ".ppk",
];

/// Private keys under the names that OpenSSH gives them.
const KEYS: [&str; 4] = ["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"];

/// Endings of compressed copies and archives: `dump.sql.gz` is the dump. Of archives only those that are usually made of
/// one file and named after it.
const PACKED: [&str; 10] = [".gz", ".br", ".zst", ".xz", ".bz2", ".lz4", ".zip", ".7z", ".tar", ".tgz"];

/// Whether a normalised path names what is never served. `/.well-known/` (RFC 8615) and Palisade's own paths are not meant.
pub(crate) fn is_hidden(path: &str) -> bool {
    let mut before = "";
    path.split('/').skip(1).enumerate().any(|(place, segment)| {
        let open = place == 0 && matches!(segment, ".well-known" | ".palisade");
        // A directory of CVS is known by its files: `CVS` alone is a word like others.
        let cvs = before == "CVS" && matches!(segment, "Entries" | "Root" | "Repository");
        before = segment;
        cvs || !open && is_hidden_name(segment)
    })
}

/// Whether a name is never served, wherever it lies.
pub(crate) fn is_hidden_name(name: &str) -> bool {
    is_or_packs(name, |name| {
        name.starts_with('.')
            || name.ends_with('~')
            || name == "_darcs"
            || KEYS.contains(&name)
            || ENDINGS.iter().any(|ending| ends_with_ignoring_case(name, ending))
    })
}

/// Whether a name is what `judge` means, or that of a compressed copy of it, however often it was packed.
pub(crate) fn is_or_packs(name: &str, judge: impl Fn(&str) -> bool) -> bool {
    let mut inner = name;
    loop {
        if judge(inner) {
            return true;
        }
        let Some(ending) = PACKED.iter().find(|ending| ends_with_ignoring_case(inner, ending)) else { return false };
        // An ending is ASCII, so that it begins at a character.
        inner = &inner[..inner.len() - ending.len()];
    }
}

/// Whether a name ends so, in any case: file systems may not tell cases apart.
pub(crate) fn ends_with_ignoring_case(text: &str, ending: &str) -> bool {
    text.len() >= ending.len() && text.as_bytes()[text.len() - ending.len()..].eq_ignore_ascii_case(ending.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files() {
        for path in [
            "/.env",
            "/static/.git/config",
            "/a/.htaccess",
            "/backup.sql~",
            "/db.BAK",
            "/server.key",
            "/a/.well-known/x",
            "/a/.palisade",
            "/keys/id_ed25519",
            "/a/CVS/Root",
            "/_darcs/prefs",
            "/main.py.swp",
            "/store.JKS",
            "/server.pem.gz",
            "/app.js.bak.gz",
            "/main.py.OLD.Br",
            "/keys/id_rsa.gz",
            "/id_ed25519.tar.xz",
            "/backup.sql~.bz2",
            "/server.key.tar.zst.zip",
            "/store.p12.7z",
            "/.env.gz",
            "/old.bak.tgz",
            "/server.key.gz/x",
            "/.",
            "/..",
        ] {
            assert!(is_hidden(path), "{path}");
        }
        for path in [
            "/.well-known/acme-challenge/x",
            "/a.b",
            "/keys",
            "/monkey",
            "/",
            "/éa",
            "/.palisade/problems/x",
            "/pharmacies/CVS",
            "/id_rsa.pub",
            "/keystore",
            "/static/ten.txt.gz",
            "/app.js.br",
            "/release.tar.gz",
            "/id_rsa.pub.gz",
            "/monkey.zip",
            "/gz",
            "/é.gz",
            "/1.0.gz.sig",
        ] {
            assert!(!is_hidden(path), "{path}");
        }
    }
}
