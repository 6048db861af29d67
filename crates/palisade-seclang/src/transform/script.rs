//! Escapes of scripting languages: `jsDecode`, `cssDecode`, `escapeSeqDecode`, `cmdLine`.

use super::url::fold_full_width;
use crate::text::{hex, hex2, is_space};

fn is_octal(b: u8) -> bool {
    (b'0'..=b'7').contains(&b)
}

fn octal(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |n, b| n * 8 + u32::from(b - b'0'))
}

/// The control character that a letter after a backslash means.
fn control(letter: u8) -> Option<u8> {
    Some(match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        _ => return None,
    })
}

/// JavaScript: `\uHHHH` (low byte), `\xHH`, octal, letters.
pub(crate) fn js_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(&b) = input.get(i) {
        let next = input.get(i + 1).copied();
        let (Some(c), b'\\') = (next, b) else {
            out.push(b);
            i += 1;
            continue;
        };
        if c == b'u'
            && let (Some(high), Some(low)) = (hex2(input, i + 2), hex2(input, i + 4))
        {
            out.push(fold_full_width(high, low));
            i += 6;
            continue;
        }
        if c == b'x'
            && let Some(byte) = hex2(input, i + 2)
        {
            out.push(byte);
            i += 4;
            continue;
        }
        if is_octal(c) {
            let mut n = input[i + 1..].iter().take(3).take_while(|b| is_octal(**b)).count();
            if n == 3 && c > b'3' {
                n = 2;
            }
            out.push(octal(&input[i + 1..i + 1 + n]) as u8);
            i += 1 + n;
            continue;
        }
        out.push(control(c).unwrap_or(c));
        i += 2;
    }
}

/// CSS: a backslash and one to six hexadecimal digits, with one white space after it; a backslash before anything else is dropped.
pub(crate) fn css_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(&b) = input.get(i) {
        i += 1;
        if b != b'\\' {
            out.push(b);
            continue;
        }
        let digits = input[i..].iter().take(6).take_while(|b| hex(**b).is_some()).count();
        if digits == 0 {
            match input.get(i) {
                Some(b'\n') => i += 1,
                Some(&c) => {
                    out.push(c);
                    i += 1;
                }
                None => {}
            }
            continue;
        }
        let run = &input[i..i + digits];
        let low = if digits == 1 { hex(run[0]) } else { hex2(run, digits - 2) }.unwrap_or(0);
        let full_width = match digits {
            4 => true,
            5 => run[0] == b'0',
            6 => run[0] == b'0' && run[1] == b'0',
            _ => false,
        };
        let high = if full_width { hex2(run, digits - 4).unwrap_or(0) } else { 0 };
        out.push(if full_width { fold_full_width(high, low) } else { low });
        i += digits;
        if input.get(i).copied().is_some_and(is_space) {
            i += 1;
        }
    }
}

/// ANSI C escapes; of an unknown one the backslash is dropped.
pub(crate) fn escape_seq_decode(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while let Some(&b) = input.get(i) {
        let next = input.get(i + 1).copied();
        let (Some(c), b'\\') = (next, b) else {
            out.push(b);
            i += 1;
            continue;
        };
        if matches!(c, b'x' | b'X') {
            if let Some(byte) = hex2(input, i + 2) {
                out.push(byte);
                i += 4;
                continue;
            }
        } else if is_octal(c) {
            let n = input[i + 1..].iter().take(3).take_while(|b| is_octal(**b)).count();
            out.push(octal(&input[i + 1..i + 1 + n]) as u8);
            i += 1 + n;
            continue;
        }
        out.push(control(c).unwrap_or(c));
        i += 2;
    }
}

/// As a shell would read it: quotes, backslashes and carets go, separators become one space, none before `/` and `(`, lower case.
pub(crate) fn cmd_line(input: &[u8], out: &mut Vec<u8>) {
    let mut space = false;
    for &b in input {
        match b {
            b'"' | b'\'' | b'\\' | b'^' => {}
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => {
                if !space {
                    out.push(b' ');
                    space = true;
                }
            }
            b'/' | b'(' => {
                if space {
                    out.pop();
                }
                space = false;
                out.push(b);
            }
            b => {
                out.push(b.to_ascii_lowercase());
                space = false;
            }
        }
    }
}
