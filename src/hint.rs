//! What to do about an error: the next thing to check, or the command to run.

use rbd::ErrorKind;
use reconcile::{ConfError, DatabaseError, GatherError};

/// The hint for an error, if there is one that helps.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<store::Error>() {
        return of_store(error);
    }
    let gather = error.downcast_ref::<GatherError>();
    if let Some(GatherError::Database(error)) = gather {
        return of_database(error);
    }
    if let Some(error) = error.downcast_ref::<DatabaseError>() {
        return of_database(error);
    }
    match error.downcast_ref::<ConfError>() {
        Some(ConfError::Conf(error)) => return of_store(error),
        Some(ConfError::Database(_, error)) => return of_database(error),
        Some(ConfError::NoDatabase(_)) => {
            return Some("name the file that has it, or give the URL with --database and the pools with --pool".into());
        }
        None => {}
    }
    match gather {
        Some(GatherError::Pool(error)) => of_ceph(error),
        _ => error.downcast_ref::<rbd::Error>().and_then(of_ceph),
    }
}

fn of_store(error: &store::Error) -> Option<String> {
    use store::{Error, NotCloneable};
    Some(match error {
        Error::AlreadyExists(_) => "choose another id (--id) or name, or remove what is there first".into(),
        Error::ForeignCluster { .. } => "point --ceph-conf at the cluster that the location names".into(),
        Error::InUse(_) => "see who uses it: rbd status, rbd children, rbd snap ls".into(),
        Error::StorageFull(_) => "see how full it is, and the pool's quota: ceph df; ceph osd pool get-quota".into(),
        Error::NotCloneable { reason: NotCloneable::OtherNamespace, .. } => {
            "set rbd_default_clone_format = 2 in ceph.conf, or clone into the image's own namespace".into()
        }
        Error::NotCloneable { reason: NotCloneable::Unprotected, .. } => {
            "protect it: rbd snap protect POOL/IMAGE@SNAPSHOT".into()
        }
        Error::NotFound(error) | Error::PermissionDenied(error) | Error::Timeout(error) | Error::Backend(error) => {
            return of_ceph(error);
        }
        _ => return None,
    })
}

fn of_ceph(error: &rbd::Error) -> Option<String> {
    let connecting = error.operation == "connect to";
    Some(match error.kind {
        ErrorKind::NotFound if error.operation == "read" => "name the file with --ceph-conf, or set CEPH_CONF".into(),
        ErrorKind::NotFound if connecting => {
            "no monitor or no key: check mon_host and keyring in ceph.conf, and --user".into()
        }
        ErrorKind::PermissionDenied if connecting => {
            "the key was refused, or there is no keyring for the user: check --user, and `keyring` in ceph.conf".into()
        }
        ErrorKind::TimedOut if connecting => {
            "no monitor answered: check mon_host in ceph.conf, and the network; --timeout waits longer".into()
        }
        ErrorKind::TimedOut => "the cluster answers too slowly: check ceph -s; --timeout waits longer".into(),
        ErrorKind::NotFound if error.object.starts_with("pool ") => "list the pools: ceph osd pool ls".into(),
        ErrorKind::NotFound if error.operation == "open image" => "list the images: glance-rbd image list".into(),
        ErrorKind::PermissionDenied => "check the user's capabilities: ceph auth get client.NAME".into(),
        ErrorKind::Blocklisted => "run the command again; see ceph osd blocklist ls".into(),
        _ => return None,
    })
}

fn of_database(error: &DatabaseError) -> Option<String> {
    Some(match error {
        DatabaseError::Url(_) => "copy `connection` from the [database] section of glance-api.conf".into(),
        DatabaseError::Key => "copy it from the [DEFAULT] section of glance-api.conf".into(),
        DatabaseError::Open(..) => {
            "check --database, that it can be reached from here, and its user and password".into()
        }
        DatabaseError::Timeout(..) => "check that the database answers; --timeout waits longer".into(),
        DatabaseError::NotGlance(..) => {
            "is it another service's database, or one before `glance-manage db sync`?".into()
        }
        DatabaseError::Read(..) | DatabaseError::Malformed(..) => return None,
    })
}
