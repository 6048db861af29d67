//! White space: `compressWhitespace`, `removeWhitespace`, `trim…`.

use crate::text::is_space;

/// The no-break space of Latin-1.
const NBSP: u8 = 0xa0;

/// Each run of white space becomes one space.
pub(crate) fn compress(input: &[u8], out: &mut Vec<u8>) {
    let mut space = false;
    for &b in input {
        if is_space(b) || b == NBSP {
            if !space {
                out.push(b' ');
            }
            space = true;
        } else {
            out.push(b);
            space = false;
        }
    }
}

pub(crate) fn remove(input: &[u8], out: &mut Vec<u8>) {
    out.extend(input.iter().filter(|b| !is_space(**b) && **b != NBSP));
}

pub(crate) fn trim_left(input: &[u8]) -> &[u8] {
    &input[input.iter().take_while(|b| is_space(**b)).count()..]
}

pub(crate) fn trim_right(input: &[u8]) -> &[u8] {
    &input[..input.len() - input.iter().rev().take_while(|b| is_space(**b)).count()]
}
