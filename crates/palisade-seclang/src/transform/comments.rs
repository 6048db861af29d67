//! Comments of SQL, C, HTML and shell: `removeComments`, `removeCommentsChar`, `replaceComments`.

/// Removes comments; a line comment (`--`, `#`) ends the value with a space.
pub(crate) fn remove(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    let mut inside = false;
    while i < input.len() {
        let rest = &input[i..];
        if inside {
            let close = if rest.starts_with(b"*/") {
                2
            } else if rest.starts_with(b"-->") {
                3
            } else {
                i += 1;
                continue;
            };
            inside = false;
            // The byte after the end is taken as it is, even where it would begin the next comment; at the end of the
            // value ModSecurity takes the NUL behind it.
            out.push(input.get(i + close).copied().unwrap_or(0));
            i += close + 1;
        } else if rest.starts_with(b"/*") {
            inside = true;
            i += 2;
        } else if rest.starts_with(b"<!--") {
            inside = true;
            i += 4;
        } else if rest.starts_with(b"--") || rest[0] == b'#' {
            out.push(b' ');
            return;
        } else {
            out.push(rest[0]);
            i += 1;
        }
    }
    if inside {
        out.push(b' ');
    }
}

/// Removes the characters that begin or end comments, and keeps what is inside.
pub(crate) fn remove_char(input: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while i < input.len() {
        let rest = &input[i..];
        i += [&b"<!--"[..], b"-->", b"/*", b"*/", b"--", b"#"].iter().find(|mark| rest.starts_with(mark)).map_or_else(
            || {
                out.push(rest[0]);
                1
            },
            |mark| mark.len(),
        );
    }
}

/// Each C comment becomes one space, also one that does not end.
pub(crate) fn replace(input: &[u8], out: &mut Vec<u8>) {
    let mut rest = input;
    while let Some(open) = memchr::memmem::find(rest, b"/*") {
        out.extend_from_slice(&rest[..open]);
        out.push(b' ');
        match memchr::memmem::find(&rest[open + 2..], b"*/") {
            Some(close) => rest = &rest[open + 2 + close + 2..],
            None => return,
        }
    }
    out.extend_from_slice(rest);
}
