//! Memory to read into, which the connections of a thread share.
//!
//! A connection that waits holds none of it: a block is taken for one read, and comes back when nothing was read, or when
//! the last of what was read has been passed on. So a thread reads through the same few blocks, which lie in its core's
//! cache, and a thousand connections that wait for their answers need no more memory than one.

use std::cell::RefCell;

use bytes::Bytes;

/// The smallest block, for heads and the first piece of an answer.
pub(super) const SMALLEST: usize = 64 * 1024;
/// The largest, for answers that come faster than they are read.
pub(super) const LARGEST: usize = 256 * 1024;
/// Bytes that a thread keeps: a block for each of some dozens of answers that wait to be written together.
const KEPT: usize = 2 * 1024 * 1024;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { blocks: Vec::new(), bytes: 0 }) };
}

/// The blocks that nobody uses, the newest last.
struct Spare {
    blocks: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Spare {
    /// The newest of a size: it is the one in the cache.
    fn take(&mut self, size: usize) -> Option<Box<[u8]>> {
        let place = self.blocks.iter().rposition(|block| block.len() == size)?;
        self.bytes -= size;
        Some(self.blocks.remove(place))
    }

    fn keep(&mut self, block: Box<[u8]>) {
        self.bytes += block.len();
        self.blocks.push(block);
        while self.bytes > KEPT {
            self.bytes -= self.blocks.remove(0).len();
        }
    }
}

/// A piece of memory, initialised; given back to the thread on which it is dropped.
pub(super) struct Block(Box<[u8]>);

impl Block {
    /// One of `size` bytes.
    pub(super) fn take(size: usize) -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().take(size));
        Self(spare.ok().flatten().unwrap_or_else(|| vec![0; size].into_boxed_slice()))
    }

    /// Its first `room` bytes, to read into.
    pub(super) fn room(&mut self, room: usize) -> &mut [u8] {
        let room = room.min(self.0.len());
        &mut self.0[..room]
    }

    /// Its first `length` bytes. Where they are few they are copied, so that nothing small keeps a block from its thread:
    /// what is held of an answer is never less than half of the memory that it takes.
    pub(super) fn filled(self, length: usize) -> Bytes {
        if length < self.0.len() / 2 {
            Bytes::copy_from_slice(self.0.get(..length).unwrap_or_default())
        } else {
            Bytes::from_owner(Filled { block: self, length })
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let block = std::mem::take(&mut self.0);
        // A thread that ends keeps nothing any more.
        let _ = SPARE.try_with(|spare| spare.borrow_mut().keep(block));
    }
}

struct Filled {
    block: Block,
    length: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.block.0.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare() -> Vec<usize> {
        SPARE.with(|spare| spare.borrow().blocks.iter().map(|block| block.len()).collect())
    }

    #[test]
    fn a_block_comes_back_when_the_last_of_its_bytes_is_gone() {
        let mut block = Block::take(SMALLEST);
        let place = block.room(4).as_ptr();
        block.room(4).copy_from_slice(b"abcd");
        let bytes = block.filled(SMALLEST / 2);
        assert!(bytes.starts_with(b"abcd") && bytes.len() == SMALLEST / 2);
        let rest = bytes.slice(2..3);
        drop(bytes);
        assert_eq!((spare(), &rest[..]), (vec![], &b"c"[..]), "somebody still reads it");
        drop(rest);
        assert_eq!(spare(), [SMALLEST]);
        assert_eq!(Block::take(SMALLEST).room(1).as_ptr(), place, "the same memory");
    }

    #[test]
    fn what_is_small_keeps_no_block() {
        let mut block = Block::take(SMALLEST);
        block.room(2).copy_from_slice(b"ab");
        let bytes = block.filled(2);
        assert_eq!((&bytes[..], spare()), (&b"ab"[..], vec![SMALLEST]));
    }

    #[test]
    fn sizes_are_kept_apart_and_few() {
        let taken: Vec<_> = (0..9).map(|n| Block::take(if n < 2 { SMALLEST } else { LARGEST })).collect();
        drop(taken);
        assert_eq!(spare(), [&[SMALLEST; 2][..], &[LARGEST; 7][..]].concat(), "all of them fit");
        drop((0..9).map(|_| Block::take(LARGEST)).collect::<Vec<_>>());
        assert_eq!(spare(), [LARGEST; 8], "the oldest went first");
        assert_eq!(Block::take(SMALLEST).room(usize::MAX).len(), SMALLEST);
    }
}
