//! Addresses of mail.

use std::fmt;
use std::str::FromStr;

/// RFC 5321 section 4.5.3.1.3: a path has 256 octets with its angle brackets.
const MAX_BYTES: usize = 254;

/// An address of mail, such as `ada@example.com`: one mailbox, without a name, and nothing that could become a second
/// header line or a second recipient.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(lettre::Address);

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address of mail, such as `ada@example.com`")]
pub struct BadAddress;

impl Address {
    /// What follows the `@`.
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    pub(crate) fn mailbox(&self) -> lettre::message::Mailbox {
        lettre::message::Mailbox::new(None, self.0.clone())
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Takes an address as it is: no surrounding space, no name, no brackets, no quoted local part (RFC 5321 section
    /// 4.1.2 advises against them, and every list of recipients that splits at commas falls for them), no address literal.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (local, domain) = text.rsplit_once('@').ok_or(BadAddress)?;
        let atom = |c: char| {
            c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || (!c.is_ascii() && !c.is_control())
        };
        let host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || (!c.is_ascii() && !c.is_control());
        let fits = text.len() <= MAX_BYTES
            && !local.is_empty()
            && local.len() <= 64
            && local.chars().all(atom)
            && !local.starts_with('-')
            && domain.chars().all(host)
            && domain.contains('.')
            && !text.chars().any(char::is_whitespace);
        if !fits {
            return Err(BadAddress);
        }
        lettre::Address::new(local, domain).map(Self).map_err(|_| BadAddress)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose address it is belongs to no log: only where the mail goes.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address(…@{})", self.domain())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        for good in ["ada@example.com", "a.b+c@sub.example.co.uk", "o'brien@example.com", "jürgen@bücher.example"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "ada@example.com\r\nBcc: all@example.com",
            "ada\n@example.com",
            "ada@example.com\0",
            "ada @example.com",
            " ada@example.com",
            "ada@example.com,eve@example.com",
            "ada@example.com;eve@example.com",
            "Ada <ada@example.com>",
            "\"ada eve\"@example.com",
            "ada@eve@example.com",
            "ada@[127.0.0.1]",
            "-oQ/tmp@example.com",
            "ada@example.com\u{2028}",
            "ada@ex\u{85}ample.com",
            &format!("{}@example.com", "a".repeat(65)),
            &format!("a@{}.example", "b.".repeat(130)),
        ] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad:?}");
        }
        assert_eq!(format!("{:?}", "ada@example.com".parse::<Address>().unwrap()), "Address(…@example.com)");
    }

    proptest! {
        #[test]
        fn no_address_breaks_a_line(text in "\\PC{0,40}|[a-z@.\r\n,<> ]{0,30}") {
            if let Ok(address) = text.parse::<Address>() {
                let shown = address.to_string();
                prop_assert!(!shown.contains(['\r', '\n', ',', '<', '>', ' ']) && shown.matches('@').count() == 1);
            }
        }
    }
}
