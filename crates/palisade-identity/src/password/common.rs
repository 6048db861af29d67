//! The list inside: passwords that everybody tries first.

use std::sync::LazyLock;

/// Django's list of common passwords (BSD-3-Clause, by Royce Williams from breached sets), its entries of at least eight
/// characters, in lower case, sorted by bytes.
static WORDS: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("common.txt").lines().collect());

/// Whether a password, in lower case, is in the list.
pub(super) fn contains(lower: &str) -> bool {
    WORDS.binary_search(&lower).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_sorted_and_found() {
        assert!(WORDS.is_sorted() && WORDS.len() > 8_000);
        assert!(contains("password123") && contains("1234567890-=") && !contains("correct horse battery"));
    }
}
