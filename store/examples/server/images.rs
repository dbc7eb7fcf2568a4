//! An image's record: creating, showing and deleting it.

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Server, failure::Failure};

/// What a new image may be given.
#[derive(Debug, Deserialize)]
pub(crate) struct NewImage {
    /// A UUID; made up where there is none.
    id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) disk_format: Option<String>,
    pub(crate) container_format: Option<String>,
    #[serde(default)]
    pub(crate) protected: bool,
}

/// `POST /v2/images`: a record, queued until its data comes.
pub(crate) async fn create(State(server): State<Server>, body: Bytes) -> Result<impl IntoResponse, Failure> {
    let wrong = |error: serde_json::Error| Failure::new(StatusCode::BAD_REQUEST, error.to_string());
    let image: NewImage = serde_json::from_slice(&body).map_err(wrong)?;
    let id = match &image.id {
        Some(id) => {
            uuid::Uuid::parse_str(id).map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?
        }
        None => uuid::Uuid::new_v4(),
    };
    let id = id.to_string();
    server.catalog.create(&id, &image).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/v2/images/{id}"))], json_of(&server, &id).await?))
}

/// `GET /v2/images/ID`.
pub(crate) async fn show(State(server): State<Server>, Path(id): Path<String>) -> Result<impl IntoResponse, Failure> {
    json_of(&server, &id).await
}

async fn json_of(server: &Server, id: &str) -> Result<impl IntoResponse + use<>, Failure> {
    let image = server.catalog.show(id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], image.to_string()))
}

/// `DELETE /v2/images/ID`: the data first. A refusal, as of an image that has been cloned, then changes nothing at all.
pub(crate) async fn delete(State(server): State<Server>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    if server.catalog.is_protected(&id).await? {
        return Err(Failure::new(StatusCode::FORBIDDEN, format!("image {id} is protected")));
    }
    if let Some(file) = server.catalog.file(&id).await? {
        let location = file.location.parse().map_err(store::Error::from)?;
        match server.store.delete(&location).await {
            Ok(_) | Err(store::Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    server.catalog.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v2/schemas/image`: python-glanceclient builds its images by it.
pub(crate) async fn schema() -> impl IntoResponse {
    let read_only = |kind: Value| json!({ "type": kind, "readOnly": true });
    let text = || json!({ "type": ["null", "string"] });
    let schema = json!({
        "name": "image",
        "properties": {
            "id": { "type": "string" },
            "name": text(),
            "disk_format": text(),
            "container_format": text(),
            "protected": { "type": "boolean" },
            "visibility": { "type": "string" },
            "status": read_only(json!("string")),
            "size": read_only(json!(["null", "integer"])),
            "virtual_size": read_only(json!(["null", "integer"])),
            "checksum": read_only(json!(["null", "string"])),
            "os_hash_algo": read_only(json!(["null", "string"])),
            "os_hash_value": read_only(json!(["null", "string"])),
            "created_at": read_only(json!("string")),
            "updated_at": read_only(json!("string")),
            "min_disk": { "type": "integer" },
            "min_ram": { "type": "integer" },
            "tags": { "type": "array", "items": { "type": "string" } },
            "self": read_only(json!("string")),
            "file": read_only(json!("string")),
            "schema": read_only(json!("string")),
        },
        "additionalProperties": { "type": "string" },
        "links": [],
    });
    ([(header::CONTENT_TYPE, "application/json")], schema.to_string())
}
