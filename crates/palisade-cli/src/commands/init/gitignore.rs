//! The lines of `.gitignore` that keep secrets out of a repository. Guide section 11.

use std::fs;
use std::path::Path;

const LINES: [&str; 7] = [".env", ".env.local", ".env.*.local", "secrets/", "*.key", "*.pem", ".palisade/"];

/// Adds the lines that are missing, where the directory is a repository; returns them.
pub(super) fn complete(directory: &Path) -> std::io::Result<Vec<&'static str>> {
    if !directory.join(".git").exists() {
        return Ok(Vec::new());
    }
    let path = directory.join(".gitignore");
    let mut text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let missing: Vec<&'static str> = LINES.into_iter().filter(|line| !has(&text, line)).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str("# Secrets and state do not belong into a repository.\n");
    for line in &missing {
        text.push_str(line);
        text.push('\n');
    }
    fs::write(path, text)?;
    Ok(missing)
}

/// Whether a text ignores a pattern already, also as `/pattern` or without its slash.
fn has(text: &str, pattern: &str) -> bool {
    let plain = |line: &str| line.trim().trim_start_matches('/').trim_end_matches('/').to_owned();
    text.lines().any(|line| plain(line) == plain(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".gitignore");
        assert!(complete(folder.path()).unwrap().is_empty() && !path.exists(), "no repository");
        fs::create_dir(folder.path().join(".git")).unwrap();
        fs::write(&path, "*.pyc\n/.env\n/.palisade").unwrap();
        let added = complete(folder.path()).unwrap();
        assert_eq!(added, [".env.local", ".env.*.local", "secrets/", "*.key", "*.pem"]);
        let once = fs::read_to_string(&path).unwrap();
        assert!(once.starts_with("*.pyc\n/.env\n/.palisade\n\n#"), "{once}");
        assert!(complete(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read_to_string(&path).unwrap(), once);
    }
}
