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

/// As PHP names the variable of an argument: leading spaces go; space, dot and an opening bracket become `_` outside an index.
pub(super) fn php_args_names(input: &[u8], out: &mut Vec<u8>) {
    let input = &input[input.iter().take_while(|b| **b == b' ').count()..];
    let open = input.iter().position(|b| *b == b'[');
    let index = open.filter(|at| *at > 0 && input[*at..].contains(&b']'));
    for (i, &b) in input.iter().enumerate() {
        let inside = index.is_some_and(|at| i >= at);
        out.push(match b {
            b' ' | b'.' | b'[' if !inside => b'_',
            b => b,
        });
    }
}
