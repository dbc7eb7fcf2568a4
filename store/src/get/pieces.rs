//! What to read of a range, in order: pieces that each lie in one object, and the holes between them.

use rbd::ObjectMap;

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Known to be zeroes, without asking.
    Hole { length: u64 },
    /// To be read.
    Data { offset: u64, length: usize },
}

/// The pieces of a range.
#[derive(Debug)]
pub(super) struct Pieces {
    next: u64,
    end: u64,
    /// The most bytes of a piece of data; divides the object size.
    step: u64,
    object_size: u64,
    /// Which objects exist, where that is known for sure.
    map: Option<ObjectMap>,
}

impl Pieces {
    /// The pieces of `start..end` of an image of objects of `object_size` bytes, none longer than `step`: a power of two,
    /// like the object size.
    pub(super) fn new(start: u64, end: u64, object_size: u64, step: u64, map: Option<ObjectMap>) -> Self {
        Self { next: start, end, step: step.min(object_size), object_size, map }
    }

    /// Whether there is a hole among those still to come.
    pub(super) fn have_holes(&self) -> bool {
        self.map.is_some()
            && self.next < self.end
            && (self.next / self.object_size..=(self.end - 1) / self.object_size).any(|object| self.is_hole(object))
    }

    /// Bytes of those still to come.
    pub(super) fn bytes(&self) -> u64 {
        self.end - self.next
    }

    /// Leaves out all still to come.
    pub(super) fn stop(&mut self) {
        self.next = self.end;
    }

    /// The most bytes of a piece of data.
    pub(super) fn longest(&self) -> usize {
        usize::try_from(self.step).expect("a piece fits in memory")
    }

    fn is_hole(&self, object: u64) -> bool {
        self.map.as_ref().is_some_and(|map| !map.exists(object))
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.next >= self.end {
            return None;
        }
        let (start, object) = (self.next, self.next / self.object_size);
        if !self.is_hole(object) {
            self.next = ((start / self.step + 1) * self.step).min(self.end);
            let length = usize::try_from(self.next - start).expect("a piece fits in memory");
            return Some(Piece::Data { offset: start, length });
        }
        while self.next < self.end && self.is_hole(self.next / self.object_size) {
            self.next = ((self.next / self.object_size + 1) * self.object_size).min(self.end);
        }
        Some(Piece::Hole { length: self.next - start })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(start: u64, end: u64, step: u64, exist: Option<&[bool]>) -> Vec<Piece> {
        let map = exist.map(|exist| exist.iter().copied().collect());
        Pieces::new(start, end, 8, step, map).collect()
    }

    #[test]
    fn holes_are_not_read_and_reads_end_with_objects() {
        let data = |offset, length| Piece::Data { offset, length };
        let hole = |length| Piece::Hole { length };
        assert_eq!(pieces(3, 18, 8, None), [data(3, 5), data(8, 8), data(16, 2)]);
        assert_eq!(pieces(3, 18, 4, None), [data(3, 1), data(4, 4), data(8, 4), data(12, 4), data(16, 2)]);
        let exist = [false, true, false, false];
        assert_eq!(pieces(0, 30, 8, Some(&exist)), [hole(8), data(8, 8), hole(14)]);
        assert_eq!(pieces(20, 21, 8, Some(&exist)), [hole(1)]);
        assert_eq!(pieces(5, 5, 8, Some(&exist)), []);
    }

    proptest! {
        /// Every byte of the range once, in order; read exactly where its object exists.
        #[test]
        fn nothing_is_left_out(
            exist in prop::option::of(prop::collection::vec(any::<bool>(), 12)),
            start in 0_u64..96, length in 0_u64..96, step in prop::sample::select(vec![1_u64, 2, 4, 8, 16]),
        ) {
            let (end, mut at) = ((start + length).min(96), start.min(96));
            let map: Option<ObjectMap> = exist.clone().map(|exist| exist.into_iter().collect());
            let all = Pieces::new(start, end, 8, step, map);
            let holes = all.have_holes();
            let mut seen = false;
            for piece in all {
                let length = match piece {
                    Piece::Hole { length } => {
                        seen = true;
                        let exist = exist.as_ref().unwrap();
                        prop_assert!((at..at + length).all(|byte| !exist[(byte / 8) as usize]));
                        length
                    }
                    Piece::Data { offset, length } => {
                        prop_assert_eq!(offset, at);
                        prop_assert!(length as u64 <= step.min(8) && offset / 8 == (offset + length as u64 - 1) / 8);
                        prop_assert!(exist.as_ref().is_none_or(|exist| exist[(offset / 8) as usize]));
                        length as u64
                    }
                };
                prop_assert!(length > 0);
                at += length;
            }
            prop_assert_eq!(at, end.max(start.min(96)));
            prop_assert_eq!(seen, holes);
        }
    }
}
