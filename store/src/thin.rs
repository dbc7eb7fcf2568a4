//! Which parts of a chunk are worth writing: all but long runs of zeroes, which an image reads where nothing was written.

use std::ops::Range;

/// Zeroes are looked for in blocks of this many bytes, the least that an OSD allocates.
const BLOCK: usize = 4 << 10;

/// The shortest run of zeroes that is left out: librbd's own discard granularity. Shorter ones would save less space than the
/// extra requests cost time.
const HOLE: usize = 64 << 10;

static ZEROES: [u8; BLOCK] = [0; BLOCK];

/// The parts of `chunk` outside runs of zeroes of [`HOLE`] bytes or more, in order. Runs begin and end at multiples of
/// [`BLOCK`], or at the chunk's end.
pub(crate) fn data(chunk: &[u8]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (number, block) in chunk.chunks(BLOCK).enumerate() {
        if *block == ZEROES[..block.len()] {
            continue;
        }
        let start = number * BLOCK;
        let end = start + block.len();
        match parts.last_mut() {
            Some(part) if start - part.end < HOLE => part.end = end,
            _ => parts.push(start..end),
        }
    }
    // Shorter runs at the edges are left out too: that costs no request.
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(length: usize) -> Vec<Range<usize>> {
        std::iter::once(0..length).collect()
    }

    #[test]
    fn only_long_runs_are_holes() {
        assert_eq!(data(&[0; 1 << 20]), []);
        assert_eq!(data(&[]), []);
        assert_eq!(data(&[1; 10_000]), whole(10_000));
        let mut chunk = vec![1; 1 << 20];
        chunk[4096..4096 + HOLE - 1].fill(0);
        assert_eq!(data(&chunk), whole(1 << 20), "a byte too short");
        chunk[4096..4096 + HOLE].fill(0);
        assert_eq!(data(&chunk), [0..4096, 4096 + HOLE..1 << 20]);
        chunk[4096 + 100] = 1;
        assert_eq!(data(&chunk), whole(1 << 20));
    }

    proptest! {
        /// Whatever is left out is zero, and nothing is kept that should have been left out.
        #[test]
        fn data_and_zeroes_are_told_apart(runs in prop::collection::vec((1..200_000usize, any::<bool>()), 0..12)) {
            let chunk: Vec<u8> = runs.iter().flat_map(|&(length, zero)| vec![u8::from(!zero); length]).collect();
            let mut end = 0;
            for part in data(&chunk) {
                prop_assert!(end == 0 || part.start - end >= HOLE);
                prop_assert!(chunk[end..part.start].iter().all(|&byte| byte == 0));
                prop_assert!(part.start % BLOCK == 0 && !part.is_empty());
                let longest = chunk[part.clone()].chunks(BLOCK).collect::<Vec<_>>();
                let longest = longest.split(|block| block.iter().any(|&byte| byte != 0)).map(<[_]>::len).max();
                prop_assert!(longest.unwrap_or(0) < HOLE / BLOCK);
                end = part.end;
            }
            prop_assert!(chunk[end..].iter().all(|&byte| byte == 0));
        }
    }
}
