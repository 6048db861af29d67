//! SQL and script injection by libinjection's method: tokens, folding, fingerprints; HTML contexts.

/// An injection's fingerprint: up to five token types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    bytes: [u8; 8],
    len: u8,
}

impl Fingerprint {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The fingerprint when `value` is an SQL injection.
pub(crate) fn sqli(value: &[u8]) -> Option<Fingerprint> {
    let result = libinjectionrs::detect_sqli(value);
    if !result.is_injection() {
        return None;
    }
    let mut bytes = [0; 8];
    let mut len = 0;
    if let Some(found) = &result.fingerprint {
        for b in found.as_bytes().iter().take_while(|b| **b != 0).take(8) {
            bytes[len] = *b;
            len += 1;
        }
    }
    Some(Fingerprint { bytes, len: len as u8 })
}

/// Whether `value` would run a script in some place of an HTML page.
pub(crate) fn xss(value: &[u8]) -> bool {
    libinjectionrs::detect_xss(value).is_injection()
}
