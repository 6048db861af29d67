//! What every Palisade crate needs.
