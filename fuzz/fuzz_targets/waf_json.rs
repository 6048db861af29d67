//! See `palisade_seclang::fuzzing::json`, which a test of that crate calls with the corpus.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_seclang::fuzzing::json(data));
