//! Names and e-mail addresses, as anybody may type them: nothing panics, and a canonical form is its own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_identity::service::{Email, Name};

fuzz_target!(|text: &str| {
    if let Ok(name) = Name::parse(text) {
        for again in [name.key(), name.shown()] {
            assert_eq!(Name::parse(again).expect("a name still").key(), name.key());
        }
    }
    if let Ok(email) = Email::parse(text) {
        for again in [email.key(), email.shown()] {
            assert_eq!(Email::parse(again).expect("an address still").key(), email.key());
        }
    }
});
