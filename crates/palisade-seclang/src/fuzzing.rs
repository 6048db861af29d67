//! What the fuzz targets call: bytes nobody chose, and what must hold of them whatever they are.
//!
//! Each function panics where the engine is wrong, and the test beside it replays the corpora that fuzzing left, on
//! stable. That the engine itself does not panic is the least that is asked; the rest is said by each function.

mod reading;
mod rules;

use std::sync::Arc;

use crate::fast::mask::{ALWAYS, BASE64, mask, trigger};
use crate::transform::{MAX_OUTPUT, Transform, apply_chain};

pub use reading::{form, json, multipart, text, xml};
pub use rules::{rules, transaction};

/// What a target calls.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("waf_rules", rules),
    ("waf_json", json),
    ("waf_form", form),
    ("waf_multipart", multipart),
    ("waf_xml", xml),
    ("waf_text", text),
    ("waf_transform", transform),
    ("waf_transaction", transaction),
];

/// A transformation, chosen by the first byte: the result is not too long, a value without the transformation's triggers
/// is not changed but for case, and a chain does the same whether or not what can do nothing is left out.
pub fn transform(data: &[u8]) {
    let Some((&first, value)) = data.split_first() else { return };
    let transform = Transform::ALL[usize::from(first) % Transform::ALL.len()];
    let mut out = Vec::new();
    transform.apply(None, value, &mut out);
    assert!(out.len() <= (4 * value.len() + 128).min(MAX_OUTPUT), "{} grows", transform.name());
    let triggers = trigger(transform);
    if triggers & (ALWAYS | BASE64) == 0 && triggers & mask(value, usize::MAX) == 0 {
        assert!(out.eq_ignore_ascii_case(value), "{} changes without a trigger", transform.name());
    }
    // The first byte's other bits choose a partner, so that chains are tried too.
    let other = Transform::ALL[usize::from(value.first().copied().unwrap_or(0)) % Transform::ALL.len()];
    let chain: Arc<[Transform]> = [transform, other, Transform::Lowercase, transform].into();
    let (mut whole, mut short, mut spare) = (Vec::new(), Vec::new(), Vec::new());
    apply_chain(&chain, None, value, &mut whole, &mut spare, false);
    apply_chain(&chain, None, value, &mut short, &mut spare, true);
    assert_eq!(whole, short, "{} and {}", transform.name(), other.name());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Inputs that fuzzing found worth keeping, through the same functions.
    #[test]
    fn corpora_are_replayed() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
            let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            let mut ran = 0;
            for file in files {
                let path = file.unwrap().path();
                // A panic says what is wrong, but not with which input.
                println!("{}", path.display());
                target(&std::fs::read(&path).unwrap());
                ran += 1;
            }
            assert!(ran >= 10, "{name}: {ran} inputs");
        }
    }
}
