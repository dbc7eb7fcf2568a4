//! The store's options, by the names and with the defaults of Glance's `rbd` driver.

use std::{path::PathBuf, time::Duration};

use crate::error::{Error, Result};

/// The store's options.
#[derive(Debug, Clone)]
pub struct Config {
    /// `rbd_store_pool`: where images are stored.
    pub pool: String,
    /// `rbd_store_user`; `None` leaves it to librados.
    pub user: Option<String>,
    /// `rbd_store_ceph_conf`; `None` is librados' search path.
    pub ceph_conf: Option<PathBuf>,
    /// `rbd_store_chunk_size` in MiB: the size of an image's objects and of a write. A power of two from 1 to 32.
    pub chunk_size: u64,
    /// `rados_connect_timeout`: how long to wait for the cluster, when connecting and for each operation; `None` is
    /// librados' default.
    pub timeout: Option<Duration>,
    /// `rbd_store_data_pool`: where data objects go; `None` is the images' own pool.
    pub data_pool: Option<String>,
    /// `rbd_thin_provisioning`: whether runs of zeroes are left out rather than written.
    pub thin: bool,
    /// How many chunks of one upload or download are in memory at once; together at most 64 MiB, but always one.
    pub window: usize,
    /// How many bytes all uploads and downloads together may hold in memory. They wait for each other; one that has waited
    /// for long (for a reader that does not read, say) gets a single chunk all the same.
    pub memory: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pool: "images".into(),
            user: None,
            ceph_conf: None,
            chunk_size: 8,
            timeout: None,
            data_pool: None,
            thin: false,
            window: 8,
            memory: 512 << 20,
        }
    }
}

impl Config {
    /// log2 of the object size in bytes.
    pub(crate) fn order(&self) -> Result<u8> {
        if !self.chunk_size.is_power_of_two() || self.chunk_size > 32 {
            return Err(Error::BadConfiguration(format!(
                "rbd_store_chunk_size is {} MiB; RBD's objects are 1, 2, 4, 8, 16 or 32 MiB",
                self.chunk_size
            )));
        }
        Ok(20 + self.chunk_size.trailing_zeros() as u8)
    }

    /// Bytes of a chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        (self.chunk_size as usize) << 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stock driver makes 4 MiB objects of a chunk size of 6, and fails obscurely on 64.
    #[test]
    fn only_object_sizes_are_chunk_sizes() {
        let order = |chunk_size| Config { chunk_size, ..Config::default() }.order().ok();
        assert_eq!([1, 2, 4, 8, 16, 32].map(order), [20, 21, 22, 23, 24, 25].map(Some));
        assert_eq!([0, 3, 6, 33, 64, u64::MAX].map(order), [None; 6]);
    }
}
