/* What bindgen reads. A missing header is explained here, where the compiler can name it. */
#if !__has_include(<rados/librados.h>)
#error "rados/librados.h not found: install librados-dev (Debian, Ubuntu) or librados-devel (Fedora, EL)"
#endif
#if !__has_include(<rbd/librbd.h>)
#error "rbd/librbd.h not found: install librbd-dev (Debian, Ubuntu) or librbd-devel (Fedora, EL)"
#endif

#include <rados/librados.h>
#include <rbd/librbd.h>

#if LIBRBD_VERSION_CODE < LIBRBD_VERSION(1, 16, 0)
#error "librbd is older than 1.16: install the headers and libraries of Ceph 16 (Pacific) or later"
#endif
