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
    name.starts_with('.')
        || name.ends_with('~')
        || name == "_darcs"
        || KEYS.contains(&name)
        || ENDINGS.iter().any(|ending| ends_with_ignoring_case(name, ending))
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
        ] {
            assert!(!is_hidden(path), "{path}");
        }
    }
}
