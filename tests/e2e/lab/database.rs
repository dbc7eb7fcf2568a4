//! The databases that Glance supports: SQLite, and servers that `tests/databases` started.

use super::{repository, sh, sqlite, uuid};

/// Where a Glance of a test keeps its rows.
pub(crate) struct GlanceDatabase {
    /// An empty database on a server; SQLite's is a file of the Glance's own.
    url: Option<String>,
}

impl GlanceDatabase {
    pub(crate) fn sqlite() -> Self {
        Self { url: None }
    }

    pub(crate) fn mariadb() -> Self {
        Self::on_server("GLANCE_RBD_TEST_MYSQL")
    }

    pub(crate) fn postgresql() -> Self {
        Self::on_server("GLANCE_RBD_TEST_POSTGRES")
    }

    fn on_server(variable: &str) -> Self {
        let Ok(server) = std::env::var(variable) else {
            panic!("no {variable}: run `make test`, or `tests/databases up` first");
        };
        let name = format!("glance_{}", &uuid()[..8]);
        sql(&server, &format!("CREATE DATABASE {name}"));
        let (address, parameters) = server.split_once('?').unwrap_or((&server, ""));
        let address = address.rsplit_once('/').unwrap().0;
        let question = if parameters.is_empty() { "" } else { "?" };
        Self { url: Some(format!("{address}/{name}{question}{parameters}")) }
    }

    /// Makes the tables, with so many rows of deleted images.
    pub(crate) fn fill(&self, rows: u32) {
        let url = self.url().unwrap();
        let schema = std::fs::read_to_string(repository("docker/glance-schema.sql")).unwrap();
        let (schema, rows) = match scheme(url) {
            "mysql" => (schema, format!("SELECT seq AS n FROM seq_1_to_{rows}")),
            _ => {
                let schema =
                    schema.replace("DATETIME", "TIMESTAMP").replace("BOOLEAN DEFAULT 0", "BOOLEAN DEFAULT false");
                (schema, format!("SELECT generate_series(1, {rows}) AS n"))
            }
        };
        for statement in schema.split(';').filter(|statement| !statement.trim().is_empty()) {
            sql(url, statement);
        }
        sql(
            url,
            &format!(
                "INSERT INTO images (id, status, created_at, deleted, min_disk, min_ram) \
                 SELECT concat('00000000-0000-4000-8000-', lpad(concat('', n), 12, '0')), 'deleted', now(), true, 0, 0 \
                 FROM ({rows}) AS numbers"
            ),
        );
    }

    /// For `Glance::up_with`.
    pub(crate) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// What SQL prints, on the database of a Glance that has this one.
    pub(crate) fn sql(&self, url: &str, text: &str) -> String {
        sql(url, text)
    }

    /// From now on this image, once it is `saving`, cannot be saved: as with a database that is locked, or has gone.
    pub(crate) fn refuse_to_save(&self, url: &str, id: &str) {
        let condition = format!("OLD.id = '{id}' AND OLD.status = 'saving'");
        let refuse = match scheme(url) {
            "sqlite" => format!(
                "CREATE TRIGGER refuse BEFORE UPDATE ON images WHEN {condition} \
                 BEGIN SELECT RAISE(ABORT, 'database is locked'); END"
            ),
            "mysql" => format!(
                "CREATE TRIGGER refuse BEFORE UPDATE ON images FOR EACH ROW \
                 IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused'; END IF"
            ),
            _ => format!(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'refused'; END $$; \
                 CREATE TRIGGER refuse BEFORE UPDATE ON images FOR EACH ROW WHEN ({condition}) \
                 EXECUTE FUNCTION refuse()"
            ),
        };
        sql(url, &refuse);
    }

    /// Undoes [`Self::refuse_to_save`].
    pub(crate) fn save_again(&self, url: &str) {
        sql(
            url,
            match scheme(url) {
                "postgresql" => "DROP FUNCTION refuse CASCADE",
                _ => "DROP TRIGGER refuse",
            },
        );
    }
}

impl Drop for GlanceDatabase {
    fn drop(&mut self) {
        let Some(url) = &self.url else { return };
        let name = url.split('?').next().unwrap().rsplit_once('/').unwrap().1;
        let Ok(server) = std::env::var(match scheme(url) {
            "mysql" => "GLANCE_RBD_TEST_MYSQL",
            _ => "GLANCE_RBD_TEST_POSTGRES",
        }) else {
            return;
        };
        // A Glance that fell with its test may still be connected.
        let force = if scheme(url) == "mysql" { "" } else { " WITH (FORCE)" };
        sql(&server, &format!("DROP DATABASE {name}{force}"));
    }
}

/// `mysql` of `mysql+pymysql://…`.
fn scheme(url: &str) -> &str {
    url.split([':', '+']).next().unwrap_or_default()
}

/// Runs SQL as the database's own client does; what it prints, without headings.
fn sql(url: &str, text: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap();
    match scheme(url) {
        "sqlite" => sqlite(rest.strip_prefix('/').unwrap(), text),
        "mysql" => {
            let (account, place) = rest.split_once('@').unwrap();
            let (user, password) = account.split_once(':').unwrap();
            let password = percent_encoding::percent_decode_str(password).decode_utf8().unwrap();
            let (server, name) = place.split('?').next().unwrap().split_once('/').unwrap();
            let (host, port) = server.split_once(':').unwrap();
            let account = [format!("--user={user}"), format!("--password={password}")];
            let place = [format!("--host={host}"), format!("--port={port}"), format!("--database={name}")];
            let options: Vec<&str> = account.iter().chain(&place).map(String::as_str).collect();
            sh(
                "mariadb",
                &[&options, ["--batch", "--skip-column-names", "--delimiter=//", "-e", text].as_slice()].concat(),
            )
        }
        _ => {
            let url = format!("postgresql://{}", rest.split('?').next().unwrap());
            sh("psql", &["--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "-c", text, &url])
        }
    }
}
