"""Glance without Keystone, its requests those of one project: an import's task must have an owner.

The paste configuration of tests/glance-lab names this in place of Glance's own filter, which gives requests none.
"""

from glance.api.middleware.context import UnauthenticatedContextMiddleware
from glance.context import RequestContext


class OwnedContextMiddleware(UnauthenticatedContextMiddleware):
    """Every request comes from an admin of the project `lab`."""

    def process_request(self, req):
        """Gives a request its context."""
        req.context = RequestContext(user_id="lab", project_id="lab", roles=["admin"], is_admin=True)
