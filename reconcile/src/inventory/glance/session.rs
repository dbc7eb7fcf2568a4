//! One connection in one read-only transaction: a moment of the database, streamed row by row.
//!
//! Every column is read as text, cast by the database itself, so that the three kinds differ in a few words of SQL and
//! nothing else. Nothing waits for ever: a row that does not come in time is an error.

use std::{collections::HashSet, future::Future, path::Path, time::Duration};

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Executor, MySqlConnection, PgConnection, Row as _,
    SqliteConnection, mysql::MySqlRow, postgres::PgRow, sqlite::SqliteConnectOptions, sqlite::SqliteRow,
};

use super::{DatabaseError, url::Address};

/// A connection in its transaction.
pub(super) struct Session<'a> {
    connection: Connection,
    /// The database's name, for errors.
    name: &'a str,
    /// How long to wait for a row.
    patience: Duration,
}

enum Connection {
    Sqlite(SqliteConnection),
    Mysql(MySqlConnection),
    Postgres(PgConnection),
}

/// A row, for as long as it is looked at.
pub(super) enum Row<'r> {
    Sqlite(&'r SqliteRow),
    Mysql(&'r MySqlRow),
    Postgres(&'r PgRow),
}

impl<'r> Row<'r> {
    /// A column's text.
    pub(super) fn text(&self, column: &str) -> Result<Option<&'r str>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Mysql(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

/// How many times the time to connect a row may take: the first of a large table is a while in coming.
const PATIENCE: u32 = 10;

impl<'a> Session<'a> {
    /// Connects, and begins a transaction that sees one moment and cannot write.
    pub(super) async fn begin(address: &Address, name: &'a str, timeout: Duration) -> Result<Self, DatabaseError> {
        let connected = tokio::time::timeout(timeout, connect(address, timeout)).await;
        let connection = connected
            .map_err(|_| DatabaseError::Timeout(name.into(), timeout))?
            .map_err(|error| DatabaseError::Open(name.into(), error))?;
        let mut session = Self { connection, name, patience: timeout.saturating_mul(PATIENCE) };
        let statements: &[&str] = match session.connection {
            // One snapshot from the first read on. Unless the database is in WAL mode writers wait until it ends, so nothing
            // but reading happens in it.
            Connection::Sqlite(_) => &["BEGIN"],
            Connection::Mysql(_) => &[
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            ],
            Connection::Postgres(_) => &["BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"],
        };
        for statement in statements {
            session.execute(statement).await?;
        }
        Ok(session)
    }

    /// Ends the transaction and the connection. Nothing was written, so no failure here matters.
    pub(super) async fn end(self) {
        let closed = async {
            match self.connection {
                Connection::Sqlite(connection) => connection.close().await,
                Connection::Mysql(connection) => connection.close().await,
                Connection::Postgres(connection) => connection.close().await,
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), DatabaseError> {
        let (name, patience) = (self.name, self.patience);
        let executed = async {
            let statement = sqlx::raw_sql(statement);
            match &mut self.connection {
                Connection::Sqlite(connection) => connection.execute(statement).await.map(drop),
                Connection::Mysql(connection) => connection.execute(statement).await.map(drop),
                Connection::Postgres(connection) => connection.execute(statement).await.map(drop),
            }
        };
        in_time(name, patience, executed).await
    }

    /// Hands every row of a query to `each`, one at a time. In the SQL a `?` stands for each of the values.
    pub(super) async fn rows(
        &mut self,
        sql: &str,
        values: &[String],
        mut each: impl FnMut(&Row<'_>) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        /// The same for three kinds of connection, which have no trait in common that could say it shorter.
        macro_rules! stream {
            ($kind:ident, $connection:expr, $sql:expr) => {{
                // Not kept prepared: poolers that hand out a connection for one transaction do not allow it.
                let mut query = sqlx::query(AssertSqlSafe($sql)).persistent(false);
                for value in values {
                    query = query.bind(value.clone());
                }
                let mut rows = query.fetch($connection);
                while let Some(row) = in_time(self.name, self.patience, rows.try_next()).await? {
                    each(&Row::$kind(&row))?;
                }
                Ok(())
            }};
        }
        match &mut self.connection {
            Connection::Sqlite(connection) => stream!(Sqlite, connection, sql.to_owned()),
            Connection::Mysql(connection) => stream!(Mysql, connection, sql.to_owned()),
            Connection::Postgres(connection) => stream!(Postgres, connection, numbered(sql)),
        }
    }

    /// The names of a table's columns.
    pub(super) async fn columns(&mut self, table: &'static str) -> Result<HashSet<String>, DatabaseError> {
        let sql = match self.connection {
            Connection::Sqlite(_) => "SELECT name FROM pragma_table_info(?)",
            Connection::Mysql(_) => {
                "SELECT CAST(column_name AS CHAR) AS name FROM information_schema.columns \
                 WHERE table_schema = DATABASE() AND table_name = ?"
            }
            // Unlike information_schema, this tells of tables that may not be read.
            Connection::Postgres(_) => {
                "SELECT CAST(attname AS TEXT) AS name FROM pg_attribute \
                 WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"
            }
        };
        let (mut columns, name) = (HashSet::new(), self.name);
        let each = |row: &Row<'_>| {
            let column = row.text("name").map_err(|error| DatabaseError::Read(name.into(), error))?;
            columns.extend(column.map(str::to_owned));
            Ok(())
        };
        self.rows(sql, &[table.to_owned()], each).await?;
        if columns.is_empty() {
            self.why_not(table).await?;
        }
        Ok(columns)
    }

    /// Whether a table that seems to have no columns is not there, or may not be read, which is an error of its own.
    async fn why_not(&mut self, table: &'static str) -> Result<(), DatabaseError> {
        const MYSQL_NO_SUCH_TABLE: u16 = 1146;
        const POSTGRES_UNDEFINED_TABLE: &str = "42P01";
        let asked = self.rows(&format!("SELECT 1 FROM {table} WHERE 1 = 0"), &[], |_| Ok(())).await;
        let Err(DatabaseError::Read(_, sqlx::Error::Database(error))) = &asked else { return asked };
        let missing = match self.connection {
            Connection::Sqlite(_) => true,
            Connection::Mysql(_) => error
                .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
                .is_some_and(|error| error.number() == MYSQL_NO_SUCH_TABLE),
            Connection::Postgres(_) => error.code().is_some_and(|code| code == POSTGRES_UNDEFINED_TABLE),
        };
        if missing { Ok(()) } else { asked }
    }

    /// SQL for the text of an expression, under a name.
    pub(super) fn text_of(&self, expression: &str, name: &str) -> String {
        let kind = match self.connection {
            Connection::Mysql(_) => "CHAR",
            Connection::Sqlite(_) | Connection::Postgres(_) => "TEXT",
        };
        format!("CAST({expression} AS {kind}) AS {name}")
    }

    /// SQL for where in `column` a value, or a literal, begins: counted from 1, and 0 where it does not occur.
    pub(super) fn position(&self, column: &str, of: &str) -> String {
        match self.connection {
            Connection::Postgres(_) => format!("strpos({column}, {of})"),
            Connection::Sqlite(_) | Connection::Mysql(_) => format!("instr({column}, {of})"),
        }
    }
}

/// Fails where something takes too long.
async fn in_time<T>(
    name: &str,
    patience: Duration,
    future: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, DatabaseError> {
    match tokio::time::timeout(patience, future).await {
        Ok(result) => result.map_err(|error| DatabaseError::Read(name.into(), error)),
        Err(_) => Err(DatabaseError::Timeout(name.into(), patience)),
    }
}

async fn connect(address: &Address, timeout: Duration) -> Result<Connection, sqlx::Error> {
    match address {
        Address::Sqlite(path) => sqlite(path, timeout).await.map(Connection::Sqlite),
        Address::Mysql(options) => options.clone().disable_statement_logging().connect().await.map(Connection::Mysql),
        Address::Postgres(options) => {
            options.clone().disable_statement_logging().connect().await.map(Connection::Postgres)
        }
    }
}

async fn sqlite(path: &Path, timeout: Duration) -> Result<SqliteConnection, sqlx::Error> {
    // SQLite itself says "unable to open database file" for all of these, or waits for ever on a pipe.
    path.metadata().and_then(|metadata| match metadata.is_file() {
        true => std::fs::File::open(path).map(drop),
        false => Err(std::io::Error::other("it is not a file")),
    })?;
    let options =
        SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(timeout).row_buffer_size(1024);
    options.disable_statement_logging().connect().await
}

/// PostgreSQL's parameters have numbers.
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let mut numbered = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        numbered.push_str(&format!("${}{part}", index + 1));
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_get_numbers() {
        assert_eq!(numbered("SELECT 1"), "SELECT 1");
        assert_eq!(numbered("a = ? OR b IN (?, ?)"), "a = $1 OR b IN ($2, $3)");
    }
}
