//! Parity bits and PHP's argument names.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parity {
    Even,
    Odd,
    Zero,
}

/// Sets the eighth bit of each byte to the wanted parity.
pub(super) fn parity(input: &[u8], parity: Parity, out: &mut Vec<u8>) {
    out.extend(input.iter().map(|b| {
        let seven = b & 0x7f;
        let odd = seven.count_ones() % 2 == 1;
        match parity {
            Parity::Zero => seven,
            Parity::Even if odd => seven | 0x80,
            Parity::Odd if !odd => seven | 0x80,
            _ => seven,
        }
    }));
}

/// As PHP names the variable of an argument: leading spaces go, spaces and dots become `_`; of an index `[…]` only what
/// PHP uses stays, and a bracket that does not close becomes `_`.
pub(super) fn php_args_names(input: &[u8], out: &mut Vec<u8>) {
    let input = &input[input.iter().take_while(|b| **b == b' ').count()..];
    let open = input.iter().position(|b| *b == b'[').unwrap_or(input.len());
    if open == 0 {
        return;
    }
    out.extend(input[..open].iter().map(|b| if matches!(b, b' ' | b'.') { b'_' } else { *b }));
    let mut rest = &input[open..];
    while let Some(index) = rest.strip_prefix(b"[") {
        let Some(close) = index.iter().position(|b| *b == b']') else {
            out.push(b'_');
            out.extend_from_slice(index);
            return;
        };
        out.push(b'[');
        out.extend_from_slice(super::space::trim_left(&index[..close]));
        out.push(b']');
        rest = &index[close + 1..];
    }
}
