//! An image's data: the two calls that use the store.

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use store::{AddOptions, Added};

use crate::{
    Server,
    failure::Failure,
    range::{Wanted, wanted},
};

/// `PUT /v2/images/ID/file`: queued → saving → active; whatever goes wrong, back to queued, and nothing stored.
pub(crate) async fn upload(
    State(server): State<Server>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Failure> {
    if text(request.headers(), "content-type") != Some("application/octet-stream") {
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the data of an image is application/octet-stream",
        ));
    }
    let size = text(request.headers(), "x-openstack-image-size").or(text(request.headers(), "content-length"));
    let size = size.and_then(|size| size.parse().ok());
    server.catalog.begin_upload(&id).await?;
    // A task of its own goes on when the client has gone and nobody waits for the response: it has a state to put right.
    let task = tokio::spawn(async move {
        let stored = store(&server, &id, size, request.into_body()).await;
        let registered = match &stored {
            Ok(added) => server.catalog.end_upload(&id, added).await,
            Err(_) => Ok(false),
        };
        match (stored, registered) {
            (Ok(_), Ok(true)) => Ok(StatusCode::NO_CONTENT),
            (Ok(added), registered) => {
                // Deleted meanwhile, or the database failed: data without a row would stay for ever.
                let _ = server.store.delete(&added.location).await;
                server.catalog.abandon_upload(&id).await?;
                registered?;
                Err(Failure::new(StatusCode::GONE, format!("image {id} was deleted during its upload")))
            }
            (Err(failure), _) => {
                server.catalog.abandon_upload(&id).await?;
                Err(failure)
            }
        }
    });
    task.await.map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
}

/// Stores a request's body. A writer that is dropped, as on every `?` here, removes what it wrote.
async fn store(server: &Server, id: &str, size: Option<u64>, body: Body) -> Result<Added, Failure> {
    let mut writer = server.store.add(id, AddOptions { size, ..AddOptions::default() }).await?;
    let mut data = body.into_data_stream();
    while let Some(chunk) = data.next().await {
        match chunk {
            Ok(chunk) => writer.write(chunk).await?,
            Err(error) => {
                // The client has gone. Removed here, and not behind our back: it may come again at once.
                writer.abort().await;
                return Err(Failure::new(StatusCode::BAD_REQUEST, error.to_string()));
            }
        }
    }
    Ok(writer.finish().await?)
}

/// `GET /v2/images/ID/file`, whole or a range of it.
pub(crate) async fn download(
    State(server): State<Server>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(file) = server.catalog.file(&id).await? else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let location = file.location.parse().map_err(store::Error::from)?;
    let part = match wanted(text(&headers, "range"), file.size) {
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
        Wanted::Unsatisfiable => {
            let size = format!("bytes */{}", file.size);
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, size)]).into_response());
        }
    };
    let range = part.clone().unwrap_or(0..file.size);
    let reader = server.store.get(&location, range).await?;
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, reader.remaining());
    let response = match part {
        None => response.header("content-md5", file.checksum),
        Some(part) => {
            let range = format!("bytes {}-{}/{}", part.start, part.end - 1, file.size);
            response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range)
        }
    };
    // The reader is a stream already. One that fails, as when the image is deleted meanwhile, ends the connection before
    // the length that was promised.
    let response = response.body(Body::from_stream(reader));
    response.map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
