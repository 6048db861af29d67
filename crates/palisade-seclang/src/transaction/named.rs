//! Variables whose names are made of what a request holds, in the order in which they were made.

use std::collections::HashMap;

use crate::store::{Span, Store};

/// Names that are looked through one by one; of more there is an index. Requests have about as many headers.
const FEW: usize = 32;

/// Variables by name, in any case.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Name and value; one that was unset has none, and keeps its place.
    list: Vec<(Span, Span)>,
    /// Places by name in lower case, once there are more than a few: else a rule that makes one of each argument takes the
    /// square of their number.
    places: HashMap<Box<[u8]>, usize>,
}

impl Named {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.places.clear();
    }

    /// Whether no variable was made yet.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Names and values of all that are set.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Span, Span)> + '_ {
        self.list.iter().copied().filter(|(_, value)| !value.is_none())
    }

    /// The place of a name.
    pub(super) fn place(&self, name: &[u8], store: &Store, constants: &[u8]) -> Option<usize> {
        if self.list.len() <= FEW {
            return self.list.iter().position(|(known, _)| {
                known.len as usize == name.len() && store.get(*known, constants).eq_ignore_ascii_case(name)
            });
        }
        self.places.get(name.to_ascii_lowercase().as_slice()).copied()
    }

    /// The value of a name; none: it is not set.
    pub(super) fn value(&self, name: &[u8], store: &Store, constants: &[u8]) -> Span {
        self.place(name, store, constants).map_or(Span::NONE, |place| self.list[place].1)
    }

    /// Sets the variable at a place.
    pub(super) fn set(&mut self, place: usize, value: Span) {
        if let Some((_, old)) = self.list.get_mut(place) {
            *old = value;
        }
    }

    /// Adds a variable that is not there yet.
    pub(super) fn add(&mut self, name: Span, value: Span, store: &Store, constants: &[u8]) {
        self.list.push((name, value));
        if self.list.len() <= FEW {
            return;
        }
        let new = if self.places.is_empty() { 0 } else { self.list.len() - 1 };
        for (place, (name, _)) in self.list.iter().enumerate().skip(new) {
            self.places.insert(store.get(*name, constants).to_ascii_lowercase().into(), place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_and_of_many_each_is_found() {
        for many in [1, FEW, FEW + 1, 1000] {
            let (mut store, mut named) = (Store::new(), Named::default());
            for n in 0..many {
                let (name, value) = (store.push(format!("Name_{n}").as_bytes()), store.push(n.to_string().as_bytes()));
                named.add(name, value, &store, b"");
            }
            let text = |name: &str, named: &Named, store: &Store| {
                let value = named.value(name.as_bytes(), store, b"");
                (!value.is_none()).then(|| String::from_utf8_lossy(store.own(value)).into_owned())
            };
            for n in [0, many / 2, many - 1] {
                assert_eq!(text(&format!("nAME_{n}"), &named, &store), Some(n.to_string()), "{n} of {many}");
            }
            assert_eq!(text("name_", &named, &store), None);
            let place = named.place(b"name_0", &store, b"").unwrap();
            named.set(place, Span::NONE);
            assert_eq!((text("name_0", &named, &store), named.iter().count()), (None, many - 1), "unset, of {many}");
            let again = store.push(b"x");
            named.set(named.place(b"NAME_0", &store, b"").unwrap(), again);
            assert_eq!((text("name_0", &named, &store), named.len()), (Some("x".to_owned()), many));
            named.clear();
            assert!(named.is_empty() && text("name_0", &named, &store).is_none());
        }
    }
}
