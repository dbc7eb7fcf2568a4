//! TLS as a URL asks for it, and sockets. The servers' certificates are for `localhost` and signed by `ca.pem`.

use super::{
    super::{Database, DatabaseError},
    lab::{directory, read, server},
};

async fn tried(url: &str) -> Result<(), DatabaseError> {
    read(&url.parse::<Database>().unwrap(), &[]).await.map(drop)
}

#[tokio::test]
async fn the_authority_and_the_name_are_verified_where_the_url_says_so() {
    let file = |name: &str| directory().join("tls").join(name).display().to_string();
    let (ca, other) = (file("ca.pem"), file("other-ca.pem"));
    let mysql = server("GLANCE_RBD_TEST_MYSQL", "glance");
    let postgres = server("GLANCE_RBD_TEST_POSTGRES", "glance");
    let by_name = |url: &str| url.replace("@127.0.0.1:", "@localhost:");
    for (right, url) in [
        (true, format!("{}?ssl_ca={ca}", by_name(&mysql))),
        (false, format!("{mysql}?ssl_ca={ca}")),
        (true, format!("{mysql}?ssl_ca={ca}&ssl_verify_identity=false")),
        (true, format!("{mysql}?ssl_ca={ca}&ssl_verify_cert=true")),
        (false, format!("{}?ssl_ca={other}", by_name(&mysql))),
        (false, format!("{mysql}?ssl_ca={other}&ssl_check_hostname=false")),
        (false, format!("{mysql}?ssl_ca={}", file("none.pem"))),
        (true, format!("{mysql}?ssl_ca={other}&ssl_verify_cert=false")),
        (true, format!("{mysql}?ssl_disabled=true")),
        (true, format!("{}?sslmode=verify-full&sslrootcert={ca}", by_name(&postgres))),
        (false, format!("{postgres}?sslmode=verify-full&sslrootcert={ca}")),
        (true, format!("{postgres}?sslmode=verify-ca&sslrootcert={ca}")),
        (false, format!("{postgres}?sslmode=verify-ca&sslrootcert={other}")),
        (false, format!("{postgres}?sslmode=require&sslrootcert={other}")),
        (true, format!("{postgres}?sslmode=require")),
        (true, format!("{postgres}?sslmode=disable")),
    ] {
        match tried(&url).await {
            Ok(()) => assert!(right, "{url}"),
            Err(error) => assert!(!right && matches!(error, DatabaseError::Open(..)), "{url}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_it_must() {
    let file = |name: &str| directory().join("tls").join(name).display().to_string();
    let account = |variable| server(variable, "glance").replace("glance:s%3Ae%2Fc%40r%25t@", "mutual:secret@");
    let mysql = account("GLANCE_RBD_TEST_MYSQL");
    let postgres = account("GLANCE_RBD_TEST_POSTGRES");
    let (certificate, key) = (file("client.pem"), file("client.key"));
    tried(&format!("{mysql}?ssl_cert={certificate}&ssl_key={key}")).await.unwrap();
    tried(&format!("{postgres}?sslmode=require&sslcert={certificate}&sslkey={key}")).await.unwrap();
    for without in [mysql, format!("{postgres}?sslmode=require")] {
        assert!(matches!(tried(&without).await, Err(DatabaseError::Open(..))), "{without}");
    }
}

#[tokio::test]
async fn sockets() {
    let directory = directory().display().to_string();
    let account = |variable| {
        let url = server(variable, "glance");
        let (before, after) = url.split_once('@').unwrap();
        (before.to_owned(), after.split_once(['/', ':']).unwrap().1.split_once('/').unwrap().0.to_owned())
    };
    let (mysql, _) = account("GLANCE_RBD_TEST_MYSQL");
    tried(&format!("{mysql}@/glance?unix_socket={directory}/mysql.sock")).await.unwrap();
    let (postgres, port) = account("GLANCE_RBD_TEST_POSTGRES");
    tried(&format!("{postgres}@/glance?host={directory}/pg&port={port}")).await.unwrap();
    tried(&format!("{postgres}@:{port}/glance?host={directory}/pg&sslmode=require")).await.unwrap();
}
