//! The thread that keeps rings fresh.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Error, Inner, Rings};

/// How often the store is looked at. A look at a file that has not changed is one system call or two.
const EVERY: Duration = Duration::from_secs(1);

/// What [`Rings::keep_fresh`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Keys came, went, or took their turn.
    Changed,
    /// The store cannot be used; the keys of before stay in use. Told once, until it can again.
    Away(Error),
    /// The store can be used again.
    Back,
}

impl Rings {
    /// Looks into the store every second, in a thread of its own that ends with the last clone of these rings.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn keep_fresh(&self, tell: impl Fn(Event) + Send + 'static) -> std::io::Result<()> {
        let rings = Arc::downgrade(&self.0);
        std::thread::Builder::new().name("palisade-keys".into()).spawn(move || run(&rings, &tell)).map(|_| ())
    }
}

fn run(rings: &Weak<Inner>, tell: &dyn Fn(Event)) {
    let mut away = false;
    loop {
        std::thread::sleep(EVERY);
        let Some(rings) = rings.upgrade().map(Rings) else { return };
        match rings.refresh() {
            Ok(changed) => {
                if std::mem::take(&mut away) {
                    tell(Event::Back);
                }
                if changed {
                    tell(Event::Changed);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tell(Event::Away(error));
                }
            }
        }
    }
}
