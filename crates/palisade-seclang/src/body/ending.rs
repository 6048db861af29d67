//! Where a multipart body may be taken for whole.

use memchr::memmem::Finder;

/// Looks for the last delimiter of a multipart body as bytes, wherever it stands: parsers stop there, and not all of them
/// ask what the line before and behind it is.
#[derive(Debug)]
pub(super) struct Ending {
    /// `--`, the boundary and `--`.
    delimiter: Finder<'static>,
    /// The end of what came, shorter by one byte than the delimiter.
    last: Vec<u8>,
    found: bool,
    undecided: usize,
}

impl Ending {
    /// `delimiter` is that between two parts: `--` and the boundary.
    pub(super) fn new(delimiter: &[u8]) -> Ending {
        let delimiter = Finder::new(&[delimiter, &b"--"[..]].concat()).into_owned();
        Ending { delimiter, last: Vec::new(), found: false, undecided: 0 }
    }

    /// How many bytes at the end of what came are the delimiter, may become it, or lie behind it.
    pub(super) fn undecided(&self) -> usize {
        self.undecided
    }

    pub(super) fn feed(&mut self, chunk: &[u8]) {
        if self.found {
            self.undecided = self.undecided.saturating_add(chunk.len());
            return;
        }
        let delimiter = self.delimiter.needle();
        let (short, before) = (delimiter.len() - 1, self.last.len());
        self.last.extend_from_slice(&chunk[..chunk.len().min(short)]);
        // Over the seam first: what begins earlier is the first one.
        let over = self.delimiter.find(&self.last).map(|at| (before + chunk.len()).saturating_sub(at));
        if let Some(undecided) = over.or_else(|| self.delimiter.find(chunk).map(|at| chunk.len() - at)) {
            self.found = true;
            self.undecided = undecided;
            return;
        }
        if chunk.len() > short {
            self.last.clear();
            self.last.extend_from_slice(&chunk[chunk.len() - short..]);
        } else {
            let old = self.last.len().saturating_sub(short);
            self.last.drain(..old);
        }
        let last = &self.last;
        let begins = (0..last.len()).find(|at| delimiter.starts_with(&last[*at..]));
        self.undecided = begins.map_or(0, |at| last.len() - at);
    }
}

#[cfg(test)]
mod tests {
    use super::Ending;

    /// By the letter: from the first delimiter on, or the longest end that is a beginning of one.
    fn naive(body: &[u8]) -> usize {
        const WHOLE: &[u8] = b"--a-a--";
        let from = (0..body.len()).find(|at| body[*at..].starts_with(WHOLE) || WHOLE.starts_with(&body[*at..]));
        from.map_or(0, |at| body.len() - at)
    }

    #[test]
    fn what_may_be_the_end_is_undecided_in_whatever_pieces_it_comes() {
        for body in [
            &b"--a-a\r\n\r\nx\r\n--a-a--\r\n"[..],
            b"--a-a\r\n\r\nx\r\n--a-a-x\r\n--a-a--",
            b"x--a-a--y--a-a--z",
            b"--a-a-a--a-a--a-a--",
            b"----a-a--a---a-a--",
            b"------------------",
            b"",
        ] {
            for piece in 1..=body.len().max(1) {
                let (mut ending, mut seen) = (Ending::new(b"--a-a"), 0);
                for chunk in body.chunks(piece) {
                    ending.feed(chunk);
                    seen += chunk.len();
                    let (before, text) = (&body[..seen], body.escape_ascii());
                    assert_eq!(ending.undecided(), naive(before), "{text} up to {seen} in pieces of {piece}");
                }
            }
        }
    }
}
