//! Many uploads at once, in little memory.

use crate::{
    child::Uploader,
    lab::{MIB, in_pool, md5, noise, sha512},
};

/// 32 at once, with a budget for 8 chunks: each gets its turn, and none another's bytes. The stock driver has `self.size`, which
/// uploads share.
#[test]
fn thirty_two_uploads_at_once_are_right_and_within_their_memory() {
    const IMAGES: usize = 32;
    const LENGTH: usize = 12;
    const MEMORY: u64 = 64 << 20;
    in_pool(
        |_| {},
        async |lab| {
            let mut child = Uploader::many(lab.pool_name(), IMAGES, LENGTH, MEMORY);
            let piece = noise(1, MIB);
            let images: Vec<String> = (0..IMAGES).map(|_| child.wait_for("image").expect("an image")).collect();
            for (n, image) in images.iter().enumerate() {
                let mut data = Vec::with_capacity(LENGTH * MIB);
                for k in 0..LENGTH {
                    data.extend_from_slice(&[(n * 7 + k) as u8; 16]);
                    data.extend_from_slice(&piece[16..]);
                }
                assert_eq!(*image, format!("image-{n} {} {}", md5(&data), sha512(&data)));
                if n % 8 == 0 {
                    assert!(lab.read(&lab.store.location_of(&format!("image-{n}"))).await == data);
                }
            }
            let memory = child.wait_for("memory").unwrap();
            let (base, peak) = memory.split_once(' ').unwrap();
            let (base, peak): (u64, u64) = (base.parse().unwrap(), peak.parse().unwrap());
            println!("{IMAGES} uploads: {} MiB over a base of {} MiB", (peak - base) >> 20, base >> 20);
            // An open image and its threads cost librbd about 2 MiB each.
            let own = IMAGES as u64 * (3 << 20);
            assert!(peak - base <= MEMORY + own, "{} MiB over a base of {} MiB", (peak - base) >> 20, base >> 20);
        },
    );
}
