//! Secrets from the environment.

use palisade_base::Secret;

use crate::{Error, Provider, check_name, finish};

/// `admin-token` is `PALISADE_SECRET_ADMIN_TOKEN`.
#[derive(Debug, Default)]
pub struct Env;

impl Env {
    /// The variable that holds a secret.
    pub fn variable(name: &str) -> String {
        let tail = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
        "PALISADE_SECRET_".chars().chain(tail).collect()
    }
}

impl Provider for Env {
    fn get(&self, name: &str) -> Result<Secret<String>, Error> {
        check_name(name)?;
        let variable = Self::variable(name);
        match std::env::var_os(&variable) {
            Some(value) => finish(name, value.into_encoded_bytes()),
            None => {
                Err(Error::Missing { name: name.into(), hint: format!("the environment has no variable `{variable}`") })
            }
        }
    }

    fn place(&self, name: &str) -> String {
        format!("the variable `{}`", Self::variable(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_variables() {
        assert_eq!(Env::variable("admin-token"), "PALISADE_SECRET_ADMIN_TOKEN");
        assert!(matches!(Env.get("no-such-secret-here"), Err(Error::Missing { .. })));
        assert!(matches!(Env.get("../etc/passwd"), Err(Error::BadName(_))));
    }
}
