//! The store's options, by the names and with the defaults of Glance's `rbd` driver.

use std::{path::PathBuf, time::Duration};

use crate::{
    error::{Error, Result},
    oslo::{BadConf, OsloConf},
};

/// The group that every backend's options fall back to.
const SHARED: &str = "backend_defaults";

/// The group of a Glance with one store.
const SINGLE: &str = "glance_store";

/// The store's options. In code, name what differs: `Config { pool: "vms".into(), ..Config::default() }`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The backend's name, as in `enabled_backends`, for [`Added`](crate::Added)'s metadata; `None` for a single store.
    pub backend: Option<String>,
    /// Whether it is one of several backends: a cluster that cannot be reached is then a bad configuration of this one
    /// (Glance's `BadStoreConfiguration`), and no reason for the others not to start.
    pub several_backends: bool,
    /// `rbd_store_pool`: where images are stored; `POOL/NAMESPACE` for an RBD namespace of it.
    pub pool: String,
    /// `rbd_store_user`; `None` leaves it to librados.
    pub user: Option<String>,
    /// `rbd_store_ceph_conf`; `None` is librados' search path.
    pub ceph_conf: Option<PathBuf>,
    /// `rbd_store_chunk_size` in MiB: the size of an image's objects and of a write. A power of two from 1 to 32.
    pub chunk_size: u64,
    /// `rados_connect_timeout`: how long to wait for the cluster, when connecting and for each operation; `None` (-1) is
    /// librados' default.
    pub timeout: Option<Duration>,
    /// `rbd_thin_provisioning`: zeroes are not written.
    pub thin: bool,
    /// `rbd_store_data_pool`: where data objects go; `None` is the images' own pool.
    pub data_pool: Option<String>,
    /// `weight`: among the locations of an image, those of heavier backends come first.
    pub weight: i64,
    /// `store_description`, for people.
    pub description: Option<String>,
    /// How many chunks of one upload or download are in memory at once; together at most 64 MiB, but always one.
    pub window: usize,
    /// How many bytes all uploads and downloads together may hold in memory. They wait for each other; one that has waited
    /// for long (for a reader that does not read, say) gets a single chunk all the same.
    pub memory: u64,
    /// How many flattens run at once; more wait for their turn.
    pub flattens: usize,
    /// Ceph's own settings that override the file's: `("rbd_default_features", "1")`.
    pub settings: Vec<(String, String)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: None,
            several_backends: false,
            pool: "images".into(),
            user: None,
            ceph_conf: None,
            chunk_size: 8,
            timeout: None,
            thin: false,
            data_pool: None,
            weight: 0,
            description: None,
            window: 8,
            memory: 512 << 20,
            flattens: 3,
            settings: Vec::new(),
        }
    }
}

impl Config {
    /// The options of one store of a `glance-api.conf`: the backend of that name; without a name `default_backend`, else the
    /// only RBD backend, else the `[glance_store]` of a Glance without `enabled_backends`.
    ///
    /// ```
    /// let conf = store::OsloConf::parse("[glance_store]\nrbd_store_pool = cloud/ns", "glance-api.conf")?;
    /// let config = store::Config::from_glance_conf(&conf, None)?;
    /// assert_eq!((config.pool.as_str(), config.chunk_size), ("cloud/ns", 8));
    /// # Ok::<(), store::Error>(())
    /// ```
    ///
    /// # Errors
    /// `BadConfiguration`: no such RBD backend, or a value that cannot be meant.
    pub fn from_glance_conf(conf: &OsloConf, backend: Option<&str>) -> Result<Self> {
        let Some(enabled) = enabled(conf)? else {
            return match backend {
                None => Ok(Self::of_group(conf, None, false)?),
                Some(name) => {
                    Err(Error::BadConfiguration(format!("there is no backend {name:?}: no enabled_backends")))
                }
            };
        };
        let several = enabled.len() > 1;
        let mut rbd = enabled.iter().filter(|(_, driver)| is_rbd(driver)).map(|(name, _)| name.as_str());
        let default = match backend {
            Some(name) => Some(name.to_owned()),
            None => conf.get(SINGLE, "default_backend")?,
        };
        let found = match &default {
            Some(wanted) => rbd.find(|name| name == wanted),
            None => rbd.next().filter(|_| rbd.next().is_none()),
        };
        let found = found.ok_or_else(|| {
            Error::BadConfiguration(match default {
                Some(name) => format!("enabled_backends has no RBD backend {name:?}"),
                None => "enabled_backends has no RBD backend, or several and no default_backend".into(),
            })
        })?;
        Ok(Self::of_group(conf, Some(found), several)?)
    }

    /// The options of all RBD stores of a `glance-api.conf`.
    ///
    /// # Errors
    /// `BadConfiguration` for a value that cannot be meant.
    pub fn backends(conf: &OsloConf) -> Result<Vec<Self>> {
        match enabled(conf)? {
            Some(enabled) => {
                let several = enabled.len() > 1;
                let rbd = enabled.iter().filter(|(_, driver)| is_rbd(driver));
                rbd.map(|(name, _)| Ok(Self::of_group(conf, Some(name), several)?)).collect()
            }
            None => {
                let stores = conf.get_list(SINGLE, "stores")?.unwrap_or_default();
                let stores = stores.iter().any(|driver| is_rbd(driver));
                stores.then(|| Ok(Self::of_group(conf, None, false)?)).into_iter().collect()
            }
        }
    }

    fn of_group(conf: &OsloConf, backend: Option<&str>, several_backends: bool) -> Result<Self, BadConf> {
        // An option is looked up in the backend's own group, then in what all share.
        let group = |key: &str| match backend {
            Some(name) if conf.is_set(name, key) => name.to_owned(),
            Some(_) => SHARED.to_owned(),
            None => SINGLE.to_owned(),
        };
        let text = |key: &str| conf.get(&group(key), key);
        let some = |key: &str| Ok::<_, BadConf>(text(key)?.filter(|value| !value.is_empty()));
        let int = |key: &str| conf.get_int(&group(key), key);
        let defaults = Self::default();
        let chunk_size = match int("rbd_store_chunk_size")? {
            None => defaults.chunk_size,
            Some(size) => u64::try_from(size).ok().filter(|&size| object_size(size)).ok_or_else(|| {
                conf.wrong(&group("rbd_store_chunk_size"), "rbd_store_chunk_size", &format!("is {size}; {CHUNK_SIZES}"))
            })?,
        };
        // Ceph takes 0 for "for ever".
        let timeout = int("rados_connect_timeout")?.and_then(|seconds| u64::try_from(seconds).ok());
        let settings = match timeout {
            Some(0) => rbd::TIMEOUTS.map(|name| (name.to_owned(), "0".to_owned())).to_vec(),
            _ => Vec::new(),
        };
        Ok(Self {
            backend: backend.map(ToOwned::to_owned),
            several_backends,
            pool: some("rbd_store_pool")?.unwrap_or(defaults.pool),
            user: some("rbd_store_user")?,
            ceph_conf: some("rbd_store_ceph_conf")?.map(PathBuf::from),
            chunk_size,
            timeout: timeout.filter(|&seconds| seconds > 0).map(Duration::from_secs),
            thin: conf.get_bool(&group("rbd_thin_provisioning"), "rbd_thin_provisioning")?.unwrap_or(defaults.thin),
            data_pool: some("rbd_store_data_pool")?,
            weight: int("weight")?.unwrap_or(defaults.weight),
            description: some("store_description")?,
            settings,
            ..Self::default()
        })
    }

    /// Pool and namespace, which is empty for the default one.
    pub(crate) fn pool_and_namespace(&self) -> Result<(&str, &str)> {
        split_pool(&self.pool).ok_or_else(|| {
            Error::BadConfiguration(format!("rbd_store_pool is {:?}, not POOL or POOL/NAMESPACE", self.pool))
        })
    }

    /// log2 of the object size in bytes.
    pub(crate) fn order(&self) -> Result<u8> {
        if !object_size(self.chunk_size) {
            let why = format!("rbd_store_chunk_size is {}; {CHUNK_SIZES}", self.chunk_size);
            return Err(Error::BadConfiguration(why));
        }
        Ok(20 + self.chunk_size.trailing_zeros() as u8)
    }

    /// Bytes of a chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        (self.chunk_size as usize) << 20
    }
}

const CHUNK_SIZES: &str = "RBD's objects are 1, 2, 4, 8, 16 or 32 MiB";

fn object_size(mebibytes: u64) -> bool {
    mebibytes.is_power_of_two() && mebibytes <= 32
}

/// `POOL` or `POOL/NAMESPACE`, as options and locations have it.
pub(crate) fn split_pool(text: &str) -> Option<(&str, &str)> {
    let (pool, namespace) = match text.split_once('/') {
        Some((_, "")) => return None,
        Some(both) => both,
        None => (text, ""),
    };
    (!pool.is_empty() && !namespace.contains('/')).then_some((pool, namespace))
}

/// `enabled_backends`, unless it is missing or empty: then there is a single store.
fn enabled(conf: &OsloConf) -> Result<Option<Vec<(String, String)>>, BadConf> {
    Ok(conf.get_dict("DEFAULT", "enabled_backends")?.filter(|enabled| !enabled.is_empty()))
}

/// The stock driver by both of its names, and ours.
fn is_rbd(driver: &str) -> bool {
    ["rbd", "glance.store.rbd.Store", "glance_rbd"].contains(&driver)
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
        for size in ["0", "-8", "6", "64", "eight"] {
            let text = format!("[glance_store]\n\nrbd_store_chunk_size = {size}");
            let error = Config::from_glance_conf(&OsloConf::parse(&text, "g.conf").unwrap(), None).unwrap_err();
            assert!(error.to_string().starts_with("BadConfiguration: g.conf:3: "), "{error}");
        }
    }

    const SEVERAL: &str = "
[DEFAULT]
enabled_backends = fast:rbd, files:file, slow:glance_rbd
[backend_defaults]
rbd_store_user = glance
rados_connect_timeout = 5
weight = 3
[fast]
rbd_store_pool = nvme/cloud
rbd_store_chunk_size = 4
rbd_thin_provisioning = on
rbd_store_ceph_conf = /etc/ceph/fast.conf
rbd_store_data_pool = nvme-ec
store_description = \"The fast one\"
weight = 10
[slow]
rados_connect_timeout = -1
[glance_store]
rbd_store_pool = not-mine
";

    #[test]
    fn several_backends_and_what_they_share() {
        let conf = OsloConf::parse(SEVERAL, "g").unwrap();
        let backends = Config::backends(&conf).unwrap();
        let [fast, slow] = backends.as_slice() else { panic!("{backends:?}") };
        assert_eq!((fast.backend.as_deref(), fast.several_backends), (Some("fast"), true));
        assert_eq!(fast.pool_and_namespace().unwrap(), ("nvme", "cloud"));
        assert_eq!((fast.chunk_size, fast.thin, fast.weight), (4, true, 10));
        assert_eq!(fast.ceph_conf, Some("/etc/ceph/fast.conf".into()));
        assert_eq!(fast.data_pool.as_deref(), Some("nvme-ec"));
        assert_eq!(fast.description.as_deref(), Some("The fast one"));
        assert_eq!((fast.user.as_deref(), fast.timeout), (Some("glance"), Some(Duration::from_secs(5))));
        assert_eq!((slow.user.as_deref(), slow.timeout, slow.weight), (Some("glance"), None, 3));
        assert_eq!((slow.pool.as_str(), slow.thin, slow.chunk_size), ("images", false, 8));

        let named = |name| Config::from_glance_conf(&conf, name).map(|config| config.backend.unwrap());
        assert_eq!(named(Some("slow")).unwrap(), "slow");
        for none in [Some("files"), Some("other"), None] {
            assert!(matches!(named(none), Err(Error::BadConfiguration(_))), "{none:?}");
        }
        let default = format!("{SEVERAL}default_backend = slow");
        let conf = OsloConf::parse(&default, "g").unwrap();
        assert_eq!(Config::from_glance_conf(&conf, None).unwrap().backend.as_deref(), Some("slow"));
    }

    /// The stock driver makes a user named "None" of an unset `rbd_store_user`.
    #[test]
    fn a_single_store_and_its_defaults() {
        let conf =
            OsloConf::parse("[glance_store]\nstores = file,rbd\nrbd_store_user =\nrbd_store_ceph_conf =", "g").unwrap();
        let backends = Config::backends(&conf).unwrap();
        let [config] = backends.as_slice() else { panic!("{backends:?}") };
        assert_eq!((&config.backend, config.several_backends), (&None, false));
        assert_eq!((&config.user, &config.ceph_conf, config.timeout), (&None, &None, None));
        assert_eq!((config.pool.as_str(), config.chunk_size, config.weight, config.thin), ("images", 8, 0, false));
        let files = OsloConf::parse("[glance_store]\nstores = file,http", "g").unwrap();
        assert!(Config::backends(&files).unwrap().is_empty());
    }

    #[test]
    fn a_timeout_of_zero_is_for_ever() {
        let conf = OsloConf::parse("[glance_store]\nrados_connect_timeout = 0", "g").unwrap();
        let config = Config::from_glance_conf(&conf, None).unwrap();
        assert_eq!((config.timeout, config.settings.len()), (None, 3));
    }

    #[test]
    fn a_namespace_follows_the_pool() {
        assert_eq!(split_pool("p"), Some(("p", "")));
        assert_eq!(split_pool("p/n"), Some(("p", "n")));
        assert_eq!(["", "/", "p/", "/n", "p/n/x"].map(split_pool), [None; 5]);
    }
}
