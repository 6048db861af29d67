//! `normalisePath` and `normalisePathWin`.
//!
//! Done in place over a copy, step for step as ModSecurity does it: rules were written against its corner cases
//! (relative paths keep leading back-references, a trailing slash stays only where there was one).

/// Removes double slashes, self-references and back-references; with `win`, backslashes are slashes.
pub(crate) fn normalise(input: &[u8], win: bool, out: &mut Vec<u8>) {
    if input.is_empty() {
        return;
    }
    let base = out.len();
    out.extend_from_slice(input);
    let kept = normalise_in_place(&mut out[base..], win);
    out.truncate(base + kept);
}

fn normalise_in_place(p: &mut [u8], win: bool) -> usize {
    let is_separator = |b: u8| b == b'/' || (win && b == b'\\');
    let end = p.len() - 1;
    let relative = !is_separator(p[0]);
    let trailing = is_separator(p[end]);
    let (mut src, mut dst) = (0, 0);
    let mut hit_root = false;
    let mut done = false;
    while !done && src <= end && dst <= end {
        if win {
            if p[src] == b'\\' {
                p[src] = b'/';
            }
            if src < end && p[src + 1] == b'\\' {
                p[src + 1] = b'/';
            }
        }
        let mut segment_end = true;
        if src == end {
            done = true;
        } else if p[src + 1] != b'/' {
            segment_end = false;
        }
        if segment_end {
            if src != end && p[src] == b'/' {
                // An empty segment: the copy below skips the slashes.
            } else if p[src] == b'.' {
                if dst > 0 && p[dst - 1] == b'.' {
                    if relative && (hit_root || dst <= 2) {
                        hit_root = true;
                    } else {
                        dst = dst.saturating_sub(3);
                        while dst > 0 && p[dst] != b'/' {
                            dst -= 1;
                        }
                        if dst == 0 {
                            hit_root = true;
                            if !relative && src == end {
                                dst += 1;
                            }
                        }
                        if done {
                            break;
                        }
                        src += 1;
                    }
                } else if dst == 0 {
                    if done {
                        break;
                    }
                    src += 1;
                } else if p[dst - 1] == b'/' {
                    if done {
                        break;
                    }
                    dst -= 1;
                    src += 1;
                }
            } else if dst > 0 {
                hit_root = false;
            }
        }
        if p[src] == b'/' {
            while src < end && is_separator(p[src + 1]) {
                src += 1;
            }
            // A relative path does not become an absolute one.
            if relative && dst == 0 {
                src += 1;
                continue;
            }
        }
        p[dst] = p[src];
        dst += 1;
        src += 1;
    }
    if !trailing && dst > 1 && p[dst - 1] == b'/' {
        dst -= 1;
    }
    dst
}
