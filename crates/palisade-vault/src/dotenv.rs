//! Secrets from a file `.env`, as developers keep them beside their application. For development: the file is plain text in
//! a working copy, one `git add .` from being published.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use palisade_base::Secret;

use crate::{Env, Error, Provider, check_name, finish};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// `admin-token` is the line `PALISADE_SECRET_ADMIN_TOKEN=…`.
#[derive(Debug)]
pub struct DotEnv(PathBuf);

impl DotEnv {
    /// The lines of this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Provider for DotEnv {
    fn get(&self, name: &str) -> Result<Secret<String>, Error> {
        check_name(name)?;
        let unreadable = |reason: String| Error::Unreadable { name: name.into(), reason };
        let file = File::open(&self.0).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::Missing { name: name.into(), hint: format!("there is no file `{}`", self.0.display()) }
            }
            _ => unreadable(error.to_string()),
        })?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
        let bytes = Secret::new(bytes);
        read.map_err(|error| unreadable(error.to_string()))?;
        if bytes.expose().len() as u64 > MAX_FILE_BYTES {
            return Err(unreadable(format!("`{}` is longer than 1 MiB", self.0.display())));
        }
        let text = std::str::from_utf8(bytes.expose())
            .map_err(|_| unreadable(format!("`{}` is not UTF-8", self.0.display())))?;
        let variable = Env::variable(name);
        // Of several the last one counts, as for those who read such files.
        let found =
            text.lines().enumerate().filter_map(|(place, line)| Some((place + 1, assigned(line, &variable)?))).last();
        match found {
            Some((_, Some(value))) => finish(name, value.expose().clone().into_bytes()),
            Some((line, None)) => {
                Err(unreadable(format!("{}:{line}: the quoted value does not end on its line", self.0.display())))
            }
            None => Err(Error::Missing {
                name: name.into(),
                hint: format!("`{}` has no line `{variable}=…`", self.0.display()),
            }),
        }
    }

    fn place(&self, name: &str) -> String {
        format!("the line `{}=…` of `{}`", Env::variable(name), self.0.display())
    }
}

/// The value that a line gives to a variable; `Some(None)` where its quote does not end.
fn assigned(line: &str, variable: &str) -> Option<Option<Secret<String>>> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let value = line.strip_prefix(variable)?.trim_start().strip_prefix('=')?.trim();
    let secret = |text: &str| Some(Secret::new(text.to_owned()));
    Some(match value.chars().next() {
        Some('\'') => value[1..].split_once('\'').and_then(|(value, _)| secret(value)),
        Some('"') => double_quoted(&value[1..]),
        // A comment needs a space before it: `#` is a character of passwords.
        _ => secret(value.split_once(" #").map_or(value, |(value, _)| value).trim_end()),
    })
}

/// Up to the closing quote, with the escapes of shells and of those who read such files.
fn double_quoted(text: &str) -> Option<Secret<String>> {
    let mut out = zeroize::Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some(Secret::new(std::mem::take(&mut *out))),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_developers_write_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        let get = |line: &str| {
            std::fs::write(&path, format!("# PALISADE_SECRET_X=comment\nOTHER=1\r\n{line}\n\nPALISADE_SECRET_XY=no\n"))
                .unwrap();
            DotEnv::new(&path).get("x").map(|secret| secret.expose().clone())
        };
        for (line, value) in [
            ("PALISADE_SECRET_X=plain", "plain"),
            ("export PALISADE_SECRET_X = spaced  ", "spaced"),
            ("PALISADE_SECRET_X=p#ss word # comment", "p#ss word"),
            ("PALISADE_SECRET_X='si\"ngle\\n # x' # comment", "si\"ngle\\n # x"),
            ("PALISADE_SECRET_X=\"dou\\\"ble\\\\ $HOME\\tx\"", "dou\"ble\\ $HOME\tx"),
            ("PALISADE_SECRET_X=first\nPALISADE_SECRET_X=second", "second"),
            ("PALISADE_SECRET_X=crlf\r", "crlf"),
            ("PALISADE_SECRET_X=a=b", "a=b"),
        ] {
            assert_eq!(get(line).unwrap(), value, "{line}");
        }
        for line in ["", "#PALISADE_SECRET_X=a", "PALISADE_SECRET_X", "XPALISADE_SECRET_X=a"] {
            assert!(matches!(get(line), Err(Error::Missing { .. })), "{line}");
        }
        for line in
            ["PALISADE_SECRET_X=", "PALISADE_SECRET_X=''", "PALISADE_SECRET_X=\"open", "PALISADE_SECRET_X='open"]
        {
            assert!(matches!(get(line), Err(Error::Unreadable { .. })), "{line}");
        }
    }
}
