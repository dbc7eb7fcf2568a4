//! SQLAlchemy's database URLs, as `[database] connection` has them, taken apart as SQLAlchemy does.
//!
//! `DIALECT[+DRIVER]://[USER[:PASSWORD]@][HOST][:PORT]/DATABASE[?KEY=VALUE&…]`. The Python driver does not matter here. What
//! a URL asks for and is not understood is refused by name: a TLS parameter that is passed over would be a hole. No error
//! repeats a value, since the password may be in any part of a URL that was mistyped.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use sqlx::{
    mysql::{MySqlConnectOptions, MySqlSslMode},
    postgres::{PgConnectOptions, PgSslMode},
};

/// Where a database is, and all that is needed to enter it.
#[derive(Clone)]
pub(super) enum Address {
    /// A file.
    Sqlite(PathBuf),
    /// MariaDB, MySQL.
    Mysql(Box<MySqlConnectOptions>),
    /// PostgreSQL.
    Postgres(Box<PgConnectOptions>),
}

/// Parameters that only say how Python's drivers talk.
const IGNORED: &[&str] = &[
    "application_name",
    "autocommit",
    "binary_prefix",
    "charset",
    "check_same_thread",
    "client_encoding",
    "collation",
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "local_infile",
    "max_allowed_packet",
    "plugin",
    "program_name",
    "read_timeout",
    "target_session_attrs",
    "tcp_user_timeout",
    "timeout",
    "use_unicode",
    "write_timeout",
];

/// A URL's parts, decoded.
struct Parts {
    user: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<u16>,
    database: String,
    query: Vec<(String, String)>,
}

/// The address that a URL gives, and a name for it that holds no secret.
pub(super) fn parse(url: &str) -> Result<(Address, String), String> {
    let (scheme, rest) =
        url.split_once("://").ok_or("it does not begin with sqlite://, mysql+pymysql:// or postgresql+psycopg2://")?;
    let dialect = scheme.split_once('+').map_or(scheme, |(dialect, _)| dialect);
    match dialect {
        "sqlite" => sqlite(&split(rest)?),
        "mysql" | "mariadb" => mysql(&split(rest)?),
        "postgresql" | "postgres" => postgres(&split(rest)?),
        _ => Err("Glance's database is SQLite, MariaDB, MySQL or PostgreSQL".into()),
    }
}

/// Takes apart what follows `://`.
fn split(rest: &str) -> Result<Parts, String> {
    // A user name has neither `:` nor `/`; a password may have both, but no `@`.
    let (account, rest) = match rest.split_once('@') {
        Some((account, after)) if !account.split(':').next().is_some_and(|user| user.contains('/')) => {
            (Some(account), after)
        }
        _ => (None, rest),
    };
    let (user, password) = match account.map(|account| account.split_once(':').ok_or(account)) {
        Some(Ok((user, password))) => (Some(user), Some(password)),
        Some(Err(user)) => (Some(user), None),
        None => (None, None),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
    if server.contains('@') {
        return Err("there are two @ in it; one in a password is written %40".into());
    }
    let (host, port) = match server.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or("a [ without a ]")?;
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err("something stands between ] and the port".into()),
            }
        }
        None => server.split_once(':').unwrap_or((server, "")),
    };
    Ok(Parts {
        user: user.filter(|user| !user.is_empty()).map(decoded).transpose()?,
        password: password.map(decoded).transpose()?,
        host: host.to_owned(),
        port: port_number(port)?,
        database: decoded(database)?,
        query: pairs(query)?,
    })
}

fn decoded(part: &str) -> Result<String, String> {
    let decoded = percent_decode_str(part).decode_utf8().map_err(|_| "what is percent-encoded in it is not UTF-8")?;
    match decoded.contains('\0') {
        true => Err("there is a NUL in it".into()),
        false => Ok(decoded.into_owned()),
    }
}

fn port_number(port: &str) -> Result<Option<u16>, String> {
    match port {
        "" => Ok(None),
        port => port.parse().map(Some).map_err(|_| "its port is not a number up to 65535".into()),
    }
}

/// The parameters that matter.
fn pairs(query: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decoded(&key.replace('+', " "))?, decoded(&value.replace('+', " "))?);
        if IGNORED.contains(&key.as_str()) || value.is_empty() {
            continue;
        }
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(format!("its parameter {key} is there twice"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn unknown(key: &str) -> String {
    format!("its parameter {key:?} is not known")
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(format!("its parameter {key} is neither true nor false")),
    }
}

fn sqlite(parts: &Parts) -> Result<(Address, String), String> {
    if let Some((key, _)) = parts.query.first() {
        return Err(unknown(key));
    }
    if parts.database.is_empty() || !parts.host.is_empty() || parts.user.is_some() || parts.port.is_some() {
        return Err("an SQLite URL is sqlite:////absolute/path or sqlite:///relative/path".into());
    }
    Ok((Address::Sqlite(PathBuf::from(&parts.database)), parts.database.clone()))
}

fn mysql(parts: &Parts) -> Result<(Address, String), String> {
    let host = if parts.host.is_empty() { "localhost" } else { &parts.host };
    let user = parts.user.as_deref().ok_or("it names no user")?;
    let mut options = MySqlConnectOptions::new().host(host).username(user).database(database(parts)?);
    if let Some(password) = &parts.password {
        options = options.password(password);
    }
    options = options.port(parts.port.unwrap_or(3306));
    let mut socket = None;
    // What MySQL's own clients do unless told otherwise: TLS where the server has it, whoever it is.
    let (mut authority, mut client, mut explicit) = (false, false, None);
    let (mut verify, mut identity) = (None, None);
    for (key, value) in &parts.query {
        match key.as_str() {
            "unix_socket" => socket = Some(value),
            "ssl_ca" => (options, authority) = (options.ssl_ca(value), true),
            "ssl_cert" => (options, client) = (options.ssl_client_cert(value), true),
            "ssl_key" => (options, client) = (options.ssl_client_key(value), true),
            "ssl_verify_cert" => verify = Some(flag(key, value)?),
            "ssl_verify_identity" | "ssl_check_hostname" => identity = Some(flag(key, value)?),
            "ssl_disabled" if flag(key, value)? => explicit = Some(MySqlSslMode::Disabled),
            "ssl_disabled" => {}
            "ssl_mode" => explicit = Some(value.parse().map_err(|_| "its parameter ssl_mode is none that MySQL has")?),
            _ => return Err(unknown(key)),
        }
    }
    let mode = explicit.unwrap_or(match (verify, identity) {
        (Some(false), _) => MySqlSslMode::Required,
        (_, Some(true)) => MySqlSslMode::VerifyIdentity,
        (Some(true), _) | (None, Some(false)) if authority || verify == Some(true) => MySqlSslMode::VerifyCa,
        (None, None) if authority => MySqlSslMode::VerifyIdentity,
        _ if client => MySqlSslMode::Required,
        _ => MySqlSslMode::Preferred,
    });
    options = options.ssl_mode(mode);
    let name = match socket {
        Some(path) => {
            options = options.socket(path);
            format!("mysql:///{}?unix_socket={path}", parts.database)
        }
        None => format!("mysql://{}/{}", server(host, parts.port.filter(|port| *port != 3306)), parts.database),
    };
    Ok((Address::Mysql(Box::new(options)), name))
}

fn postgres(parts: &Parts) -> Result<(Address, String), String> {
    let (mut host, mut port) = (parts.host.clone(), parts.port);
    let (mut user, mut password) = (parts.user.clone(), parts.password.clone());
    let (mut mode, mut authority) = (PgSslMode::Prefer, None);
    let mut options = PgConnectOptions::new_without_pgpass().database(database(parts)?);
    for (key, value) in &parts.query {
        match key.as_str() {
            "host" if value.contains([',', ':']) && !value.starts_with('/') => {
                return Err("its parameter host names several hosts, or a port".into());
            }
            "host" => host.clone_from(value),
            "port" => port = port_number(value)?,
            "user" => user = Some(value.clone()),
            "password" => password = Some(value.clone()),
            "sslmode" if value == "allow" => mode = PgSslMode::Prefer,
            "sslmode" => mode = value.parse().map_err(|_| "its parameter sslmode is none that PostgreSQL has")?,
            // The system's authorities are believed anyway.
            "sslrootcert" if value == "system" => mode = PgSslMode::VerifyFull,
            "sslrootcert" => authority = Some(value),
            "sslcert" => options = options.ssl_client_cert(value),
            "sslkey" => options = options.ssl_client_key(value),
            _ => return Err(unknown(key)),
        }
    }
    if let Some(authority) = authority {
        options = options.ssl_root_cert(authority);
        // As libpq does: whoever names an authority means it.
        if matches!(mode, PgSslMode::Require) {
            mode = PgSslMode::VerifyCa;
        }
    }
    if host.is_empty() {
        host = "/var/run/postgresql".into();
    }
    if let Some(user) = user {
        options = options.username(&user);
    }
    if let Some(password) = password {
        options = options.password(&password);
    }
    let name = if host.starts_with('/') {
        mode = PgSslMode::Disable; // There is none on a socket.
        let port = port.filter(|port| *port != 5432).map(|port| format!("&port={port}")).unwrap_or_default();
        format!("postgresql:///{}?host={host}{port}", parts.database)
    } else {
        format!("postgresql://{}/{}", server(&host, port.filter(|port| *port != 5432)), parts.database)
    };
    let options = options.host(&host).port(port.unwrap_or(5432)).ssl_mode(mode);
    Ok((Address::Postgres(Box::new(options)), name))
}

fn database(parts: &Parts) -> Result<&str, String> {
    if parts.database.is_empty() { Err("it names no database".into()) } else { Ok(&parts.database) }
}

/// `host`, `host:port` or `[host]:port`.
fn server(host: &str, port: Option<u16>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    port.map_or(host.clone(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str) -> String {
        parse(url).map_or_else(|error| format!("refused: {error}"), |(_, name)| name)
    }

    fn mysql_options(url: &str) -> MySqlConnectOptions {
        match parse(url) {
            Ok((Address::Mysql(options), _)) => *options,
            _ => panic!("{url}"),
        }
    }

    fn postgres_options(url: &str) -> PgConnectOptions {
        match parse(url) {
            Ok((Address::Postgres(options), _)) => *options,
            _ => panic!("{url}"),
        }
    }

    #[test]
    fn names_tell_databases_apart_and_hold_no_secret() {
        for (url, expected) in [
            ("sqlite:////var/lib/glance.sqlite", "/var/lib/glance.sqlite"),
            ("sqlite:///glance.sqlite?timeout=60", "glance.sqlite"),
            ("mysql+pymysql://glance:secret@db/glance?charset=utf8", "mysql://db/glance"),
            ("mysql://glance:secret@db:3306/glance", "mysql://db/glance"),
            ("mariadb+mariadbconnector://glance:secret@db:3307/glance", "mysql://db:3307/glance"),
            ("mysql+pymysql://glance:se/cr:et@[fd00::1]:3307/glance", "mysql://[fd00::1]:3307/glance"),
            (
                "mysql+pymysql://glance:secret@/glance?unix_socket=/run/x.sock",
                "mysql:///glance?unix_socket=/run/x.sock",
            ),
            ("postgresql+psycopg2://glance:secret@db/glance", "postgresql://db/glance"),
            ("postgresql://glance:secret@db:5433/glance?application_name=g", "postgresql://db:5433/glance"),
            ("postgresql://glance@[::1]/glance?password=secret", "postgresql://[::1]/glance"),
            (
                "postgresql://glance:secret@/glance?host=/run/pg&port=6000",
                "postgresql:///glance?host=/run/pg&port=6000",
            ),
            ("postgresql:///glance", "postgresql:///glance?host=/var/run/postgresql"),
        ] {
            assert_eq!(name(url), expected, "{url}");
        }
    }

    #[test]
    fn an_account_is_decoded() {
        let mysql = mysql_options("mysql+pymysql://gl%40nce:p%2Fw%25%40%20x@db/gl%20ance");
        assert_eq!((mysql.get_username(), mysql.get_database()), ("gl@nce", Some("gl ance")));
        // sqlx does not show a password, but writes it into its own form of the URL.
        assert!(sqlx::ConnectOptions::to_url_lossy(&mysql).as_str().contains("p%2Fw%25%40%20x"));
        let postgres = postgres_options("postgresql+psycopg2://gl%40nce:p%2Fw@db/glance");
        assert_eq!((postgres.get_username(), postgres.get_host()), ("gl@nce", "db"));
    }

    #[test]
    fn tls_is_what_the_url_asks_for() {
        use MySqlSslMode::{Disabled, Preferred, Required, VerifyCa, VerifyIdentity};
        for (query, expected) in [
            ("", Preferred),
            ("?ssl_disabled=true", Disabled),
            ("?ssl_ca=/ca", VerifyIdentity),
            ("?ssl_ca=/ca&ssl_check_hostname=false", VerifyCa),
            ("?ssl_ca=/ca&ssl_verify_identity=false", VerifyCa),
            ("?ssl_ca=/ca&ssl_verify_cert=true", VerifyCa),
            ("?ssl_ca=/ca&ssl_verify_cert=true&ssl_verify_identity=true", VerifyIdentity),
            ("?ssl_ca=/ca&ssl_verify_cert=false", Required),
            ("?ssl_verify_cert=true", VerifyCa),
            ("?ssl_verify_identity=true", VerifyIdentity),
            ("?ssl_cert=/c&ssl_key=/k", Required),
            ("?ssl_mode=VERIFY_CA&ssl_ca=/ca", VerifyCa),
        ] {
            let found = mysql_options(&format!("mysql://u:p@h/d{query}")).get_ssl_mode();
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{query}");
        }
        use PgSslMode::{Disable, Prefer, Require, VerifyCa as Authority, VerifyFull};
        for (query, expected) in [
            ("", Prefer),
            ("?sslmode=disable", Disable),
            ("?sslmode=require", Require),
            ("?sslmode=require&sslrootcert=/ca", Authority),
            ("?sslmode=verify-full&sslrootcert=/ca", VerifyFull),
            ("?sslrootcert=system", VerifyFull),
        ] {
            let found = postgres_options(&format!("postgresql://u:p@h/d{query}")).get_ssl_mode();
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_repeated() {
        for url in [
            "",
            "secret",
            "/var/lib/secret.sqlite",
            "sqlite://",
            "sqlite:///",
            "sqlite://secret/x",
            "oracle://u:secret@h/d",
            "mysql://u:secret@h/",
            "mysql://u:secret@h",
            "mysql://u:sec@ret@h/d",
            "mysql://u:secret@h:port/d",
            "mysql://u:secret@h:99999/d",
            "mysql://u:secret@[::1/d",
            "mysql://u:%FFsecret@h/d",
            "mysql://u:%00secret@h/d",
            "mysql://:secret@h/d",
            "mysql://u:secret@h/d?ssl_verify_cert=secret",
            "mysql://u:secret@h/d?ssl_mode=secret",
            "postgresql://u:secret@h/d?sslmode=secret",
            "postgresql://u:secret@/d?host=a,b",
            "postgresql://u:secret@/d?host=a&host=b",
        ] {
            let refused = parse(url).err().unwrap_or_else(|| panic!("{url:?} is taken"));
            assert!(!refused.contains("secret"), "{url:?}: {refused}");
        }
        for (url, parameter) in [
            ("mysql://u:p@h/d?ssl_cipher=x", "ssl_cipher"),
            ("postgresql://u:p@h/d?sslcrl=x", "sslcrl"),
            ("sqlite:////x?mode=ro", "mode"),
        ] {
            assert!(name(url).contains(&format!("parameter {parameter:?} is not known")), "{}", name(url));
        }
    }
}
