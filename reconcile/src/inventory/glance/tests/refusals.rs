//! What is not read, and what is said about it.

use super::{
    super::{Database, DatabaseError, session::Session},
    lab::{KINDS, Kind, TestDatabase, mysql, postgres, read, server},
};

/// The error of reading a URL. It names the database and holds no password.
async fn refused(url: &str) -> DatabaseError {
    let database: Database = url.parse().unwrap();
    let error = read(&database, &[]).await.unwrap_err();
    let text = format!("{error} {error:?} {database:?}");
    assert!(text.contains(database.name()), "{text}");
    for secret in ["s:e/c@r%t", "s%3Ae%2Fc%40r%25t", "not-the-password"] {
        assert!(!text.contains(secret), "{text}");
    }
    error
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_database() {
    for variable in ["GLANCE_RBD_TEST_MYSQL", "GLANCE_RBD_TEST_POSTGRES"] {
        let url = server(variable, "glance");
        let password = url.replace("s%3Ae%2Fc%40r%25t", "not-the-password");
        assert_ne!(password, url);
        for wrong in [password, url.replace("//glance:", "//nobody:"), server(variable, "imaginary")] {
            let error = refused(&wrong).await;
            assert!(matches!(error, DatabaseError::Open(..)), "{error}");
        }
    }
    let error = refused("mysql+pymysql://glance:not-the-password@127.0.0.1:1/glance").await;
    assert!(error.to_string().contains("refused"), "{error}");
    let error = refused("postgresql+psycopg2://glance:not-the-password@/glance?host=/nonexistent").await;
    assert!(matches!(error, DatabaseError::Open(..)), "{error}");
}

#[tokio::test]
async fn a_database_without_tables() {
    for kind in KINDS {
        let database = TestDatabase::new(kind).await;
        let tables = ["image_locations", "image_properties", "image_members", "image_tags", "images"];
        for table in tables {
            let cascade = if kind == Kind::Postgres { "CASCADE" } else { "" };
            database.sql(&format!("DROP TABLE IF EXISTS {table} {cascade}")).await;
        }
        let error = refused(&database.url()).await;
        assert!(error.to_string().ends_with("is not a Glance database: it has no table images"), "{error}");
    }
}

#[tokio::test]
async fn a_database_that_lacks_something_is_refused_by_its_name() {
    for database in TestDatabase::all().await {
        let missing = |error: DatabaseError| match error {
            DatabaseError::NotGlance(_, what) => what,
            error => panic!("{error}"),
        };
        database.sql("ALTER TABLE image_locations DROP COLUMN value").await;
        assert_eq!(missing(refused(&database.url()).await), "column image_locations.value");
        database.sql("DROP TABLE image_properties").await;
        database.sql("DROP TABLE image_locations").await;
        assert_eq!(missing(refused(&database.url()).await), "table image_locations");
    }
}

/// "Not there" and "not allowed" are two things: an admin who is told of the wrong one makes a new database.
#[tokio::test]
async fn tables_that_may_not_be_read_are_not_missing() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let user = database.name.clone();
    postgres("postgres", &format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'")).await;
    let url = database.url().replace("glance:s%3Ae%2Fc%40r%25t", &format!("{user}:secret"));
    let error = refused(&url).await;
    assert!(matches!(error, DatabaseError::Read(..)) && error.to_string().contains("permission denied"), "{error}");

    let database = TestDatabase::new(Kind::Mysql).await;
    let user = &database.name[..20];
    let grant = format!("GRANT SELECT ON {}.images TO {user}", database.name);
    mysql("", &format!("CREATE USER {user} IDENTIFIED BY 'secret'; {grant}")).await;
    let url = database.url().replace("glance:s%3Ae%2Fc%40r%25t", &format!("{user}:secret"));
    let error = refused(&url).await;
    assert!(matches!(error, DatabaseError::Read(..)) && error.to_string().contains("denied"), "{error}");
}

/// The transaction refuses to write even for a user who may.
#[tokio::test]
async fn nothing_can_be_written() {
    for database in TestDatabase::all().await {
        database.image("a", "active", false).await;
        let all: Database = database.url().parse().unwrap();
        let mut session = Session::begin(&all.address, &all.name, all.timeout).await.unwrap();
        let written = session.rows("UPDATE images SET status = 'deleted'", &[], |_| Ok(())).await;
        assert!(matches!(written, Err(DatabaseError::Read(..))), "{:?}", database.kind);
        session.end().await;
        assert_eq!(read(&all, &[]).await.unwrap().images["a"].status, "active");
    }
}

/// A row that is not as Glance writes it is an error that says where, not a row that is left out.
#[tokio::test]
async fn garbage_in_a_column_is_named() {
    for (kind, garbage, column) in [
        (Kind::Sqlite, "UPDATE images SET created_at = 'yesterday'", "images.created_at"),
        (Kind::Sqlite, "UPDATE images SET deleted_at = 'zzz', deleted = TRUE", "images.deleted_at"),
        (Kind::Sqlite, "UPDATE images SET deleted = 'perhaps'", "images.deleted"),
        (Kind::Sqlite, "UPDATE images SET size = 'big'", "images.size"),
        (Kind::Sqlite, "UPDATE images SET checksum = CAST(X'ff00fe' AS TEXT)", "images.checksum"),
        (Kind::Sqlite, "UPDATE image_locations SET value = CAST(X'ff00fe' AS TEXT)", "image_locations.value"),
        (Kind::Mysql, "SET check_constraint_checks = 0; UPDATE images SET deleted = 7", "images.deleted"),
        (Kind::Mysql, "SET sql_mode = ''; UPDATE images SET created_at = 0", "images.created_at"),
        (
            Kind::Mysql,
            "ALTER TABLE image_locations MODIFY value TEXT; UPDATE image_locations SET value = NULL",
            "image_locations.value",
        ),
        (Kind::Postgres, "UPDATE images SET created_at = 'infinity'", "images.created_at"),
        (
            Kind::Postgres,
            "UPDATE images SET updated_at = '4714-11-24 00:00:00 BC', deleted = FALSE",
            "images.updated_at",
        ),
    ] {
        let database = TestDatabase::new(kind).await;
        database.image("a", "active", false).await;
        database.location("a", "rbd://x", "active", "{}").await;
        database.sql(garbage).await;
        let error = refused(&database.url()).await;
        assert!(
            matches!(error, DatabaseError::Malformed(..)) && error.to_string().contains(column),
            "{garbage}: {error}"
        );
    }
}

/// A size that Glance cannot have meant is unknown; an empty or odd status is shown as it is.
#[tokio::test]
async fn odd_values_are_no_errors() {
    for database in TestDatabase::all().await {
        database.image("a", "?", false).await;
        database.sql("UPDATE images SET size = -1, checksum = ''").await;
        let facts = read(&database.database(), &[]).await.unwrap();
        assert_eq!((facts.images["a"].size, facts.images["a"].status.as_str()), (None, "?"));
    }
}
