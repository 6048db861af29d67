//! A stored hash: read without panic, and what is read stays within the memory that the pool is made for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_identity::password::Stored;

fuzz_target!(|text: &str| {
    if let Ok(stored) = Stored::parse(text) {
        assert!(stored.memory_bytes() <= 257 << 20, "{text}");
    }
});
