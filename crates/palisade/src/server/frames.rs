//! The frames in the bytes of an HTTP/2 connection (RFC 9113 §4.1): their heads, and where a piece of the stream may end.

/// So many bytes begin what a client sends (RFC 9113 §3.4).
pub(super) const PREFACE: usize = 24;
/// So many bytes are the head of a frame.
pub(super) const HEAD: usize = 9;
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// Where frames are handed on in turn, one that begins a request is as many others: a connection to the application may
/// have to be opened for it.
pub(super) const OF_A_REQUEST: u32 = 4;

/// No head of an answer of ours is as short as this: each has the id of the request, which never is in the table of fields
/// that both sides keep (RFC 7541 §2.3).
const BARE: usize = 12;

/// The head of a frame.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// Whether it is a whole answer of the library's own, or trailers.
    pub(super) fn is_bare(self) -> bool {
        self.kind == HEADERS
            && self.flags & (END_STREAM | END_HEADERS) == END_STREAM | END_HEADERS
            && self.length < BARE
    }
}

/// Follows frames through a stream of bytes, without looking into them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Frames {
    head: [u8; HEAD],
    have: usize,
    skip: usize,
    last: Head,
}

impl Frames {
    /// Of a client that has said nothing yet.
    pub(super) fn of_client() -> Self {
        Self { skip: PREFACE, ..Self::default() }
    }

    /// `seen` gets the head of each frame, and what follows it in these bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Head, &[u8])) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.have).min(bytes.len());
            if taken == 0 {
                return;
            }
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                let [a, b, c, kind, flags, rest @ ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                let stream = u32::from_be_bytes(rest) & 0x7fff_ffff;
                (self.have, self.skip) = (0, length);
                self.last = Head { length, kind, flags, stream };
                seen(self.last, bytes);
            }
        }
    }

    /// How many of these bytes come before the frame that would cost more than `most` allows, and what those before it cost.
    /// A reset goes with what is before it: a request that is given up in the breath in which it was begun reaches nobody.
    pub(super) fn cut(mut self, bytes: &[u8], most: u32) -> (usize, u32) {
        let (mut left, mut cost) = (bytes, 0);
        while !left.is_empty() {
            if self.is_between() {
                cost += match left.get(3) {
                    Some(&RST_STREAM) => u32::from(cost < most),
                    // Of which kind it is may not have come yet.
                    Some(&HEADERS) | None if cost + OF_A_REQUEST <= most => OF_A_REQUEST,
                    Some(&HEADERS) | None => break,
                    _ if cost < most => 1,
                    _ => break,
                };
            }
            let rest = if self.skip == 0 { HEAD - self.have } else { self.skip };
            let (these, next) = left.split_at(rest.min(left.len()));
            self.feed(these, |_, _| {});
            left = next;
        }
        (bytes.len() - left.len(), cost)
    }

    /// Whether more of a frame has to come that is no piece of a body.
    pub(super) fn is_within_head(&self) -> bool {
        self.have > 0 || (self.skip > 0 && self.last.kind != DATA)
    }

    /// Whether no frame has begun.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.skip == 0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn of(kind: u8, payload: usize) -> Vec<u8> {
        frame(kind, 0, 1, &vec![7; payload])
    }

    #[test]
    fn a_cut_is_before_a_frame() {
        let three = [of(6, 8), of(DATA, 0), of(HEADERS, 30)].concat();
        let between = Frames::default();
        for (most, cut) in [(0, (0, 0)), (1, (17, 1)), (2, (26, 2)), (5, (26, 2)), (6, (65, 6)), (9, (65, 6))] {
            assert_eq!(between.cut(&three, most), cut, "{most}");
        }
        let given_up = [of(HEADERS, 30), of(RST_STREAM, 4), of(RST_STREAM, 4), of(6, 8)].concat();
        assert_eq!(between.cut(&given_up, OF_A_REQUEST), (given_up.len() - 17, OF_A_REQUEST));
        assert_eq!(between.cut(&given_up, OF_A_REQUEST - 1), (0, 0));
        let within = Frames { skip: 20, ..between };
        assert_eq!(within.cut(&three, 0), (20, 0), "the rest of one that has begun");
        assert_eq!(within.cut(&three[..10], 5), (10, 0));
    }

    proptest! {
        /// However bytes arrive and turns are given, the frames are those of the whole, and a turn has no more than it may.
        #[test]
        fn turns_change_nothing(
            frames in prop::collection::vec((prop::sample::select(vec![DATA, HEADERS, RST_STREAM]), 0usize..40), 1..30),
            pieces in prop::collection::vec(1usize..50, 1..60),
            most in OF_A_REQUEST..10,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|&(kind, payload)| of(kind, payload)).collect();
            let sent = frames;
            let (mut frames, mut seen, mut left) = (Frames::default(), Vec::new(), &bytes[..]);
            let mut pieces = pieces.iter().cycle();
            while !left.is_empty() {
                let piece = &left[..(*pieces.next().unwrap()).min(left.len())];
                let (end, cost) = frames.cut(piece, most);
                prop_assert!(end > 0 && cost <= most);
                frames.feed(&piece[..end], |head, _| seen.push((head.kind, head.length)));
                left = &left[end..];
            }
            prop_assert_eq!(seen, sent);
        }
    }
}
