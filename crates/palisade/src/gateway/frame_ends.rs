//! Where the frames of a WebSocket end (RFC 6455 section 5.2): nothing may be said to one side in the middle of a frame.
//!
//! What the frames carry is not looked at.

/// The longest head of a frame: two bytes, a length of eight, a mask of four.
const MAX_HEAD: usize = 14;
/// The opcode of a close frame.
const CLOSE: u8 = 8;

/// Follows the frames of one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct FrameEnds {
    head: [u8; MAX_HEAD],
    /// How much of the head is known.
    have: usize,
    /// How much of the payload is to come.
    left: u64,
    closed: bool,
}

impl FrameEnds {
    /// Whether the last frame has ended, and the next not begun.
    pub(super) const fn at_end(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a close frame has begun: after it nothing may be said.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// These bytes have passed.
    pub(super) fn passed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = bytes.get(self.step(bytes)..).unwrap_or_default();
        }
    }

    /// Takes what belongs to the frame that is under way, and says how many bytes that were; never past its end.
    pub(super) fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            return taken;
        }
        for (taken, byte) in bytes.iter().enumerate() {
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            if self.have >= self.head_length() {
                self.begin();
                return taken + 1;
            }
        }
        bytes.len()
    }

    /// How long the head is, as far as its first two bytes say.
    const fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 != 0 { 4 } else { 0 };
        2 + length + mask
    }

    fn begin(&mut self) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all: u64, byte| all << 8 | u64::from(*byte));
        self.left = match self.head[1] & 0x7f {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => u64::from(short),
        };
        self.closed |= self.head[0] & 0x0f == CLOSE;
        self.have = 0;
    }
}

/// A close frame with a code and a reason of at most 123 bytes; `mask` where a client says it (section 5.3).
pub(super) fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(123));
    // A control frame has 125 bytes at most.
    let length = u8::try_from(payload.len()).unwrap_or_default();
    let mut frame = vec![0x80 | CLOSE, length | if mask.is_some() { 0x80 } else { 0 }];
    if let Some(mask) = mask {
        frame.extend(mask);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..=125 => frame.push(mask | length as u8),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + if masked { 4 } else { 0 } + length, b'x');
        frame
    }

    #[test]
    fn close_frames_are_frames() {
        assert_eq!(close(1008, "", None), [0x88, 2, 0x03, 0xf0]);
        assert_eq!(close(1008, "a", Some([1, 2, 3, 4])), [0x88, 0x83, 1, 2, 3, 4, 0x03 ^ 1, 0xf0 ^ 2, b'a' ^ 3]);
        let mut ends = FrameEnds::default();
        ends.passed(&close(1008, &"a".repeat(200), Some([9; 4])));
        assert!(ends.at_end() && ends.is_closed());
    }

    #[test]
    fn a_length_that_nobody_sends_is_no_end() {
        let mut ends = FrameEnds::default();
        ends.passed(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert!(!ends.at_end() && !ends.is_closed());
    }

    proptest! {
        /// However the bytes are cut, the ends are where they are.
        #[test]
        fn ends_are_where_frames_end(
            frames in prop::collection::vec((0_u8..=15, any::<bool>(), prop_oneof![0_usize..130, 60_000_usize..70_000]), 1..6),
            pieces in prop::collection::vec(1_usize..400, 1..40),
        ) {
            let mut bytes = Vec::new();
            let mut ends_at = vec![0];
            for (opcode, masked, length) in &frames {
                bytes.extend(frame(*opcode, *masked, *length));
                ends_at.push(bytes.len());
            }
            let (mut ends, mut at) = (FrameEnds::default(), 0);
            for piece in pieces.iter().cycle() {
                prop_assert_eq!(ends.at_end(), ends_at.contains(&at), "{}", at);
                if at == bytes.len() {
                    break;
                }
                let next = (at + piece * 97).min(bytes.len());
                ends.passed(&bytes[at..next]);
                at = next;
            }
            prop_assert_eq!(ends.is_closed(), frames.iter().any(|(opcode, ..)| *opcode == CLOSE));
        }
    }
}
