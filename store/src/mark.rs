//! The mark that an upload puts on its image while it lasts, as RBD image metadata: who writes, since when, how much.
//!
//! It tells the reconciler that an image without snapshot is an upload and not somebody's disk.

use std::time::{SystemTime, UNIX_EPOCH};

use rbd::Image;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The key of the image metadata.
pub const UPLOAD_MARK: &str = "glance-rbd.upload";

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadMark {
    /// The writer's RADOS client, as in its watch: `client.4242`.
    pub client: String,
    /// Seconds since 1970.
    pub started: u64,
    /// Bytes announced, if they were.
    pub size: Option<u64>,
}

impl UploadMark {
    pub(crate) async fn set(image: &Image, size: Option<u64>) -> Result<()> {
        let mark = Self {
            client: format!("client.{}", image.pool().cluster().instance_id()),
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            size,
        };
        let text = serde_json::to_string(&mark).expect("a mark has no unencodable part");
        Ok(image.set_metadata(UPLOAD_MARK, &text).await?)
    }

    pub(crate) async fn clear(image: &Image) -> Result<()> {
        Ok(image.remove_metadata(UPLOAD_MARK).await?)
    }
}
