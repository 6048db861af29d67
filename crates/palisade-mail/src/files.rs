//! Mail as files, for development: each one is a `.eml` that any mail program opens.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The most files that are kept; the oldest go. They hold links that log people in.
const MAX_FILES: usize = 500;

/// Makes the directory, for this user alone.
pub(crate) fn prepare(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes one mail: whole under its name, or not at all. The names are in the order in which mail was sent.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    prepare(folder)?;
    let new = folder.join(format!(".{name}.new"));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&new, folder.join(format!("{name}.eml"))));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    prune(folder)
}

fn prune(folder: &Path) -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.file_name())).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".eml"));
    if names.len() > MAX_FILES {
        names.sort_unstable();
        for name in &names[..names.len() - MAX_FILES] {
            let _ = fs::remove_file(folder.join(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_private_and_few() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("mail");
        for number in 0..MAX_FILES + 3 {
            write(&folder, &format!("{number:06}"), b"To: a@example.com\r\n\r\n").unwrap();
        }
        let count = fs::read_dir(&folder).unwrap().count();
        assert_eq!(count, MAX_FILES);
        assert!(!folder.join("000002.eml").exists());
        let meta = fs::metadata(folder.join("000003.eml")).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }
}
