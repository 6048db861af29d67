//! Entity tags (RFC 9110 §8.8.3).
//!
//! The tag of a file up to 1 MiB is a digest of its bytes: two instances, and two deployments of the same bytes, agree on
//! it, and an archive that sets every time to the same second fools nobody. It is made once as long as the file stays the
//! same by everything that the file system says of it. A larger file is known by that alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;

/// The largest file whose bytes are read for its tag.
const DIGESTED: u64 = 1 << 20;
/// How many digests are kept: some 100 bytes each.
const KEPT: usize = 8192;
/// Below this age a file may have been changed once more within the same tick of the file system's clock.
const SETTLED: Duration = Duration::from_secs(2);

/// What a file system says of a file; any change of its bytes changes one of these, once the clock has ticked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Digests of files, kept over reloads. Bounded.
#[derive(Debug, Default)]
pub(super) struct Tags(Mutex<HashMap<Identity, [u8; 12]>>);

/// An entity tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// In quotes.
    pub(super) text: String,
    /// Whether equal tags mean equal bytes.
    pub(super) strong: bool,
}

impl Tags {
    /// The tag of an open file. Reads it where it must, and leaves its place at the start. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn tag(&self, file: &mut File, meta: &std::fs::Metadata) -> std::io::Result<Tag> {
        let identity = Identity {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        // The kernel's clock, since it wrote the times.
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0));
        let settled = SystemTime::now().duration_since(changed).is_ok_and(|age| age > SETTLED);
        let digest = if identity.length > DIGESTED {
            identity.digest()
        } else if let Some(known) = self.0.lock().get(&identity).copied() {
            known
        } else {
            let digest = digest(file)?;
            file.rewind()?;
            if settled {
                self.keep(identity, digest);
            }
            digest
        };
        Ok(Tag { text: format!("\"{}\"", data_encoding::BASE64URL_NOPAD.encode(&digest)), strong: settled })
    }

    fn keep(&self, identity: Identity, digest: [u8; 12]) {
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            // Any half: what is asked for often is soon back.
            let mut keep = false;
            kept.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        kept.insert(identity, digest);
    }
}

impl Identity {
    fn digest(self) -> [u8; 12] {
        let mut context = Context::new(&SHA256);
        for number in [self.device, self.inode, self.length] {
            context.update(&number.to_le_bytes());
        }
        for number in [self.modified.0, self.modified.1, self.changed.0, self.changed.1] {
            context.update(&number.to_le_bytes());
        }
        short(context)
    }
}

fn digest(file: &mut File) -> std::io::Result<[u8; 12]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 32 << 10];
    // A file that grows meanwhile is not followed for ever.
    let mut left = DIGESTED + 1;
    loop {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut buffer[..most])?;
        if read == 0 {
            return Ok(short(context));
        }
        context.update(&buffer[..read]);
        left -= read as u64;
    }
}

/// 96 bits are enough for what nobody gains anything by forging.
fn short(context: Context) -> [u8; 12] {
    let mut out = [0; 12];
    out.copy_from_slice(&context.finish().as_ref()[..12]);
    out
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn tag(tags: &Tags, path: &std::path::Path) -> Tag {
        let mut file = File::open(path).unwrap();
        let meta = file.metadata().unwrap();
        let tag = tags.tag(&mut file, &meta).unwrap();
        assert_eq!(file.stream_position().unwrap(), 0);
        tag
    }

    #[test]
    fn tags_follow_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, other) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("other"));
        std::fs::write(&one, "same bytes").unwrap();
        std::fs::write(&two, "same bytes").unwrap();
        std::fs::write(&other, "other byte").unwrap();
        // All times the same, as archives that are made reproducible have them.
        for path in [&one, &two, &other] {
            File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        let tags = Tags::default();
        assert_eq!(tag(&tags, &one).text, tag(&tags, &two).text);
        assert_ne!(tag(&tags, &one).text, tag(&tags, &other).text);
        // Just written: another write could follow within the same tick.
        assert!(!tag(&tags, &one).strong);
        assert!(tags.0.lock().is_empty());
        assert!(tag(&tags, std::path::Path::new("/proc/self/exe")).text.len() > 10);
    }

    #[test]
    fn large_files_are_not_read_and_what_is_kept_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(DIGESTED + 1).unwrap();
        let tags = Tags::default();
        let before = tag(&tags, &large);
        assert_eq!(before, tag(&tags, &large));
        File::options().write(true).open(&large).unwrap().set_len(DIGESTED + 2).unwrap();
        assert_ne!(before, tag(&tags, &large));
        for inode in 0..3 * KEPT as u64 {
            let identity = Identity { device: 1, inode, length: 1, modified: (1, 1), changed: (1, 1) };
            tags.keep(identity, [0; 12]);
        }
        assert!(tags.0.lock().len() <= KEPT);
    }
}
