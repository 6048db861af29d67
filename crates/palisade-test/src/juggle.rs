//! Things that change places under the same names as fast as they can: what a race between a check and its use is lost to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// Puts one thing after the other under `files/race/x` and `files/race/way/deep/x` of a folder, until it is told to stop:
/// a file that says `inside`, links to `secret.txt` of the folder, a directory, a FIFO, and on the way links to its
/// directory `outside`. All of them are renamed into place, so that at any moment there is one thing or none. There must be
/// a file `files/race/kept` that says `inside`. Returns how often it went round.
///
/// # Errors
/// When the folder is not made so.
pub fn juggle(folder: &Path, stop: &AtomicBool) -> Result<u64> {
    let files = folder.join("files");
    let (stage, inside) = (folder.join("stage"), files.join("race"));
    fs::create_dir_all(&stage)?;
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let place = stage.join("next");
        match rounds % 6 {
            0 => fs::write(&place, "inside")?,
            1 => symlink(folder.join("secret.txt"), &place)?,
            2 => fs::create_dir(&place)?,
            3 => mkfifo(&place, Mode::S_IRWXU)?,
            4 => symlink("../../secret.txt", &place)?,
            // A second name of a file inside, which is as good as the first.
            _ => fs::hard_link(files.join("race/kept"), &place)?,
        }
        swap(&place, &inside.join("x"), &stage)?;
        // A directory on the way: the real one, a link to one of the same shape outside, the real one moved outside.
        let (way, real) = (inside.join("way"), stage.join("real"));
        match rounds % 3 {
            0 => {
                fs::create_dir_all(real.join("deep"))?;
                fs::write(real.join("deep/x"), "inside")?;
                swap(&real, &way, &stage)?;
            }
            1 => {
                symlink(folder.join("outside"), &place)?;
                swap(&place, &way, &stage)?;
            }
            _ => {
                symlink("../../outside", &place)?;
                swap(&place, &way, &stage)?;
            }
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// Renames a thing to a place that may be taken, and throws away what was there.
fn swap(from: &Path, to: &Path, stage: &Path) -> Result<()> {
    let gone = stage.join("gone");
    if to.symlink_metadata().is_ok() {
        fs::rename(to, &gone)?;
    }
    fs::rename(from, to)?;
    match gone.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&gone)?,
        Ok(_) => fs::remove_file(&gone)?,
        Err(_) => {}
    }
    Ok(())
}
