//! A connection to a cluster.

use std::{
    ffi::{CStr, c_char},
    path::PathBuf,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    completion::blocking,
    errno::{ERANGE, ErrorKind, Result, check},
    pool::Pool,
    reap::reap,
    strings::{c_string, strings, take_buffer, text},
};

/// How to connect. The default is what `rbd` and `ceph` do when given no option.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// The `ceph.conf`; `None` searches where librados does (`$CEPH_CONF`, `/etc/ceph/ceph.conf`, `~/.ceph/config`, `ceph.conf`).
    pub conf: Option<PathBuf>,
    /// The user without its `client.` prefix; `None` leaves it to librados (`$CEPH_ARGS`, else `admin`).
    pub user: Option<String>,
    /// How long to wait for the cluster: to connect, and for each later operation, which then fails with `TimedOut`. Long
    /// operations (those with a [`Progress`](crate::Progress)) may take as long as they come on. `None` is librados' own
    /// default: 300 s to connect, and for ever after that.
    pub timeout: Option<Duration>,
    /// Settings that override the file's, by Ceph's names: `("rbd_cache", "false")`.
    pub settings: Vec<(String, String)>,
}

/// The settings that [`ConnectOptions::timeout`] sets.
pub const TIMEOUTS: [&str; 3] = ["client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout"];

/// A connection, shared by everything opened through it; closed when the last of them is dropped.
///
/// ```no_run
/// # async fn example() -> rbd::Result<()> {
/// let cluster = rbd::Cluster::connect(rbd::ConnectOptions::default()).await?;
/// let images = cluster.pool("images").await?.images().await?;
/// println!("{} images on {}", images.len(), cluster.fsid());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Cluster(Arc<Connected>);

struct Connected {
    raw: RawCluster,
    fsid: String,
    timeout: Option<Duration>,
    /// An operation was refused because this client is blocklisted.
    blocklisted: Alarm,
}

/// Set when an operation was refused because its client is blocklisted. Futures keep it, and so not their connection.
#[derive(Clone, Default)]
pub(crate) struct Alarm(Arc<AtomicBool>);

impl Alarm {
    /// Passes a result on, and remembers if it was such a refusal.
    pub(crate) fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.kind == ErrorKind::Blocklisted
        {
            self.0.store(true, Ordering::Relaxed);
        }
        result
    }
}

struct RawCluster(rbd_sys::rados_t);

// SAFETY: a `rados_t` may be used from any thread, and from several at once (librados locks inside).
unsafe impl Send for RawCluster {}
// SAFETY: as above.
unsafe impl Sync for RawCluster {}

impl Drop for RawCluster {
    fn drop(&mut self) {
        let raw = Sendable(self.0);
        // SAFETY: nothing else holds the handle: pools and images hold the `Cluster` it belongs to.
        reap(move || unsafe { rbd_sys::rados_shutdown(raw.get()) });
    }
}

/// A raw handle on its way to the thread that closes it.
pub(crate) struct Sendable<T>(pub(crate) T);

// SAFETY: used for librados and librbd handles alone, which any thread may close.
unsafe impl<T> Send for Sendable<T> {}

impl<T: Copy> Sendable<T> {
    pub(crate) fn get(&self) -> T {
        self.0
    }
}

impl Cluster {
    /// Connects, waiting at most [`ConnectOptions::timeout`].
    ///
    /// Implements: `rados_create`, `rados_conf_read_file`, `rados_conf_parse_env`, `rados_conf_set`, `rados_connect`,
    /// `rados_cluster_fsid`.
    ///
    /// # Errors
    /// `NotFound` where there is no `ceph.conf`, or it names no keyring with this user's key; `PermissionDenied` for a wrong
    /// key; `TimedOut` where no monitor answers; `InvalidArgument` for a file that cannot be parsed or an unknown setting.
    pub async fn connect(options: ConnectOptions) -> Result<Self> {
        // Bounded by its own settings.
        blocking(None, || 0, "connect to", "the cluster", move || connect(&options)).await
    }

    /// The cluster's id, as in `ceph fsid` and in every Glance location.
    #[must_use]
    pub fn fsid(&self) -> &str {
        &self.0.fsid
    }

    /// Opens a pool by name.
    ///
    /// Implements: `rados_ioctx_create`, `rados_set_pool_full_try`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pool(&self, name: &str) -> Result<Pool> {
        Pool::open(self.clone(), name.to_owned(), String::new()).await
    }

    /// Id and name of every pool.
    ///
    /// Implements: `rados_pool_list`, `rados_pool_lookup`.
    ///
    /// # Errors
    /// As librados reports them. A pool removed meanwhile is left out.
    pub async fn pools(&self) -> Result<Vec<(i64, String)>> {
        let cluster = self.clone();
        self.blocking("list pools of", "the cluster", move || cluster.list_pools()).await
    }

    pub(crate) fn list_pools(&self) -> Result<Vec<(i64, String)>> {
        let names = strings("list pools of", "the cluster", |buffer, length| {
            // SAFETY: `buffer` has `length` bytes. librados answers with the length it would have needed.
            let needed = unsafe { rbd_sys::rados_pool_list(self.raw(), buffer, *length) };
            let full = usize::try_from(needed).is_ok_and(|needed| needed > *length);
            *length = usize::try_from(needed).unwrap_or(0);
            if full { -ERANGE } else { needed }
        })?;
        let mut pools = Vec::with_capacity(names.len());
        for name in names {
            let c_name = c_string("look up pool", &name)?;
            // SAFETY: a live handle and a C string.
            match check("look up pool", &name, unsafe { rbd_sys::rados_pool_lookup(self.raw(), c_name.as_ptr()) }) {
                Ok(id) => pools.push((id, name)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pools)
    }

    /// Sends a command to the monitors, as JSON (`{"prefix":"osd dump","format":"json"}`), and returns its output.
    ///
    /// Implements: `rados_mon_command`.
    ///
    /// # Errors
    /// As the monitors report them; `PermissionDenied` where the user's capabilities do not reach.
    pub async fn mon_command(&self, command: &str) -> Result<Vec<u8>> {
        let cluster = self.clone();
        let object = command.to_owned();
        let command = c_string("run monitor command", command)?;
        self.blocking("run monitor command", object.clone(), move || {
            let (mut out, mut out_len, mut status, mut status_len) = (ptr::null_mut(), 0, ptr::null_mut(), 0);
            // SAFETY: one command, no input, four valid out pointers.
            let code = unsafe {
                rbd_sys::rados_mon_command(
                    cluster.raw(),
                    [command.as_ptr()].as_mut_ptr(),
                    1,
                    ptr::null(),
                    0,
                    &raw mut out,
                    &raw mut out_len,
                    &raw mut status,
                    &raw mut status_len,
                )
            };
            let output = take_buffer(out, out_len);
            let status = take_buffer(status, status_len);
            check("run monitor command", format!("{object} ({})", String::from_utf8_lossy(&status)), code)?;
            Ok(output)
        })
        .await
    }

    /// A setting as this connection has it, by Ceph's name.
    ///
    /// Implements: `rados_conf_get`.
    ///
    /// # Errors
    /// `NotFound` for a setting that Ceph does not know.
    pub fn setting(&self, name: &str) -> Result<String> {
        let c_name = c_string("read setting", name)?;
        let mut value: [c_char; 4096] = [0; 4096];
        // SAFETY: a live handle, a C string, and a buffer of the length given.
        check("read setting", name, unsafe {
            rbd_sys::rados_conf_get(self.raw(), c_name.as_ptr(), value.as_mut_ptr(), value.len())
        })?;
        Ok(text(&value))
    }

    /// Whether clones are v1 or v2 unless told otherwise: `rbd_default_clone_format` if it says, else v2 from the day on that
    /// the cluster takes no client older than Ceph 13.
    ///
    /// Implements: `rados_get_min_compatible_client`.
    ///
    /// # Errors
    /// As librados reports them.
    pub async fn default_clone_format(&self) -> Result<u8> {
        const MIMIC: i8 = 13;
        match self.setting("rbd_default_clone_format")?.as_str() {
            "1" => return Ok(1),
            "2" => return Ok(2),
            _auto => {}
        }
        let cluster = self.clone();
        self.blocking("ask for the oldest client of", "the cluster", move || {
            let (mut seen, mut required) = (0, 0);
            // SAFETY: a connected handle and two out pointers.
            let code =
                unsafe { rbd_sys::rados_get_min_compatible_client(cluster.raw(), &raw mut seen, &raw mut required) };
            check("ask for the oldest client of", "the cluster", code)?;
            Ok(if required >= MIMIC { 2 } else { 1 })
        })
        .await
    }

    /// Keeps a client off the OSDs for `duration`, so that nothing it still has in flight can land.
    ///
    /// `address` is as [`Watcher::address`](crate::Watcher) gives it.
    ///
    /// Implements: `rados_blocklist_add`.
    ///
    /// # Errors
    /// `PermissionDenied`, `InvalidArgument`.
    pub async fn blocklist(&self, address: &str, duration: Duration) -> Result<()> {
        let cluster = self.clone();
        let object = address.to_owned();
        let address = c_string("blocklist", address)?;
        self.blocking("blocklist", object.clone(), move || {
            let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
            // SAFETY: librados reads the address only.
            check("blocklist", object, unsafe {
                rbd_sys::rados_blocklist_add(cluster.raw(), address.as_ptr().cast_mut(), seconds)
            })?;
            Ok(())
        })
        .await
    }

    /// This connection's own number among the cluster's clients: the `id` of its watches and locks (`client.4242`).
    ///
    /// Implements: `rados_get_instance_id`.
    #[must_use]
    pub fn instance_id(&self) -> u64 {
        // SAFETY: a connected handle.
        unsafe { rbd_sys::rados_get_instance_id(self.raw()) }
    }

    /// Whether an operation of this connection has failed because the client was blocklisted. All others will too: only a
    /// new connection helps.
    #[must_use]
    pub fn is_blocklisted(&self) -> bool {
        self.0.blocklisted.0.load(Ordering::Relaxed)
    }

    pub(crate) fn alarm(&self) -> &Alarm {
        &self.0.blocklisted
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.0.timeout
    }

    /// Runs a blocking call, as long as the timeout allows.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        object: impl Into<String>,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.alarm().noted(blocking(self.timeout(), || 0, operation, object, call).await)
    }

    pub(crate) fn raw(&self) -> rbd_sys::rados_t {
        self.0.raw.0
    }
}

fn connect(options: &ConnectOptions) -> Result<Cluster> {
    let user = options.user.as_deref().map(|user| c_string("connect as", user)).transpose()?;
    let mut handle = ptr::null_mut();
    // SAFETY: an out pointer, and a C string or null.
    let code = unsafe { rbd_sys::rados_create(&raw mut handle, user.as_deref().map_or(ptr::null(), CStr::as_ptr)) };
    check("create a client as", options.user.as_deref().unwrap_or("the default user"), code)?;
    let raw = RawCluster(handle);

    let path = options.conf.as_ref().map(|path| path.display().to_string());
    let conf = path.as_deref().map(|path| c_string("read", path)).transpose()?;
    // SAFETY: a live handle, and a C string or null.
    check("read", path.as_deref().unwrap_or("ceph.conf in any of librados' places"), unsafe {
        rbd_sys::rados_conf_read_file(raw.0, conf.as_deref().map_or(ptr::null(), CStr::as_ptr))
    })?;
    // SAFETY: null stands for CEPH_ARGS.
    check("read", "CEPH_ARGS", unsafe { rbd_sys::rados_conf_parse_env(raw.0, ptr::null()) })?;

    let timeouts = options.timeout.map(|timeout| timeout.as_secs().max(1).to_string());
    let timeouts = TIMEOUTS.into_iter().zip(timeouts.iter().cycle()).map(|(name, value)| (name, value.as_str()));
    for (name, value) in timeouts.chain(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        let (c_name, c_value) = (c_string("set", name)?, c_string("set", value)?);
        // SAFETY: a live handle and two C strings.
        let code = unsafe { rbd_sys::rados_conf_set(raw.0, c_name.as_ptr(), c_value.as_ptr()) };
        check("set", format!("{name} = {value}"), code)?;
    }

    // SAFETY: a configured handle, not yet connected.
    check("connect to", "the cluster", unsafe { rbd_sys::rados_connect(raw.0) })?;
    let mut fsid: [c_char; 37] = [0; 37];
    // SAFETY: a connected handle; 36 characters and their NUL fit.
    check("read the fsid of", "the cluster", unsafe {
        rbd_sys::rados_cluster_fsid(raw.0, fsid.as_mut_ptr(), fsid.len())
    })?;
    Ok(Cluster(Arc::new(Connected { raw, fsid: text(&fsid), timeout: options.timeout, blocklisted: Alarm::default() })))
}
