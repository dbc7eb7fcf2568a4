//! What a `glance-api.conf` says about the database and the stores.

use std::{path::Path, time::Duration};

use store::{Config, OsloConf};

use super::{Database, DatabaseError};

/// A Glance, as its configuration describes it.
#[derive(Debug, Clone)]
pub struct GlanceConf {
    /// Its database, with `metadata_encryption_key` if there is one.
    pub database: Database,
    /// Its RBD stores.
    pub backends: Vec<Config>,
    /// The names in `enabled_backends`, of every kind of store; empty where there is a single store without a name.
    pub stores: Vec<String>,
    /// `scrub_time`: how long an image stays deleted before the scrubber may remove its data.
    pub scrub_time: Duration,
    /// `delayed_delete`: whether the scrubber removes data, and not the API at once.
    pub delayed_delete: bool,
}

/// Why a `glance-api.conf` is of no use. It never shows a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It cannot be read, or an option cannot be meant. The text names file and line.
    #[error(transparent)]
    Conf(#[from] store::Error),
    /// It names no database: it may be another service's, or the database is named in another file.
    #[error("{0} has no `connection` in its section [database]")]
    NoDatabase(String),
    /// Its database cannot be used.
    #[error("{0}: {1}")]
    Database(String, DatabaseError),
}

impl From<store::BadConf> for ConfError {
    fn from(error: store::BadConf) -> Self {
        Self::Conf(error.into())
    }
}

impl GlanceConf {
    /// Reads a `glance-api.conf`.
    ///
    /// # Errors
    /// Where it cannot be read, or does not say where the database is.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfError> {
        let path = path.as_ref();
        Self::of(&OsloConf::read(path)?, &path.display().to_string())
    }

    fn of(conf: &OsloConf, file: &str) -> Result<Self, ConfError> {
        let set = |section, key| conf.get(section, key).map(|value| value.filter(|value| !value.is_empty()));
        // The second is what it was called at first.
        let mut url = match set("database", "connection")? {
            Some(url) => url,
            None => set("DEFAULT", "sql_connection")?.ok_or_else(|| ConfError::NoDatabase(file.to_owned()))?,
        };
        if let Some(more) = set("database", "connection_parameters")? {
            url = format!("{url}{}{more}", if url.contains('?') { '&' } else { '?' });
        }
        let wrong = |error| ConfError::Database(file.to_owned(), error);
        let mut database: Database = url.parse().map_err(wrong)?;
        if let Some(key) = set("DEFAULT", "metadata_encryption_key")? {
            database = database.with_key(&key).map_err(wrong)?;
        }
        let stores = conf.get_dict("DEFAULT", "enabled_backends")?.unwrap_or_default();
        let scrub_time = conf.get_int("DEFAULT", "scrub_time")?.unwrap_or(0);
        let scrub_time = u64::try_from(scrub_time).map_err(|_| conf.wrong("DEFAULT", "scrub_time", "is negative"))?;
        Ok(Self {
            database,
            backends: Config::backends(conf)?,
            stores: stores.into_iter().map(|(name, _)| name).collect(),
            scrub_time: Duration::from_secs(scrub_time),
            delayed_delete: conf.get_bool("DEFAULT", "delayed_delete")?.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<GlanceConf, ConfError> {
        GlanceConf::of(&OsloConf::parse(text, "glance-api.conf").unwrap(), "glance-api.conf")
    }

    const CONF: &str = "
[DEFAULT]
enabled_backends = fast:rbd, files:file, slow:rbd
metadata_encryption_key = 0123456789abcdef
scrub_time = 43200
delayed_delete = True
[database]
connection = mysql+pymysql://glance:sec%2Fret$$@db/glance?charset=utf8
connection_parameters = ssl_ca=/etc/ssl/db.pem
[fast]
rbd_store_pool = nvme
rbd_store_ceph_conf = /etc/ceph/fast.conf
";

    #[test]
    fn a_configuration_is_all_a_scan_needs() {
        let conf = of(CONF).unwrap();
        assert_eq!(conf.database.name(), "mysql://db/glance");
        assert!(conf.database.key.is_some());
        let pools: Vec<&str> = conf.backends.iter().map(|backend| backend.pool.as_str()).collect();
        assert_eq!(pools, ["nvme", "images"]);
        assert_eq!(conf.stores, ["fast", "files", "slow"]);
        assert_eq!((conf.scrub_time, conf.delayed_delete), (Duration::from_secs(43_200), true));
        let super::super::Address::Mysql(options) = &conf.database.address else { panic!() };
        assert_eq!(format!("{:?}", options.get_ssl_mode()), "VerifyIdentity", "connection_parameters count");
    }

    #[test]
    fn an_old_configuration_of_a_single_store() {
        let conf = of("[DEFAULT]\nsql_connection = sqlite:////x\n[glance_store]\nstores = rbd\n").unwrap();
        assert_eq!((conf.database.name(), conf.stores.len(), conf.backends.len()), ("/x", 0, 1));
        assert_eq!((conf.scrub_time, conf.delayed_delete), (Duration::ZERO, false));
    }

    #[test]
    fn secrets_are_shown_neither_in_errors_nor_in_debug() {
        let debug = format!("{:?}", of(CONF).unwrap());
        assert!(!debug.contains("sec") && !debug.contains("0123456789"), "{debug}");
        for (text, expected) in [
            ("[database]\n", "glance-api.conf has no `connection`"),
            ("[database]\nconnection = db2://u:secret@h/d", "glance-api.conf: the database URL is not understood"),
            ("[database]\nconnection = mysql://u:secret@h/d?x=secret", "parameter \"x\" is not known"),
            ("[database]\nconnection = sqlite:////x\n[DEFAULT]\nmetadata_encryption_key = secret", "not 16, 24 or 32"),
            ("[database]\nconnection = sqlite:////x\n[DEFAULT]\nscrub_time = -1", "glance-api.conf:4: "),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }
}
