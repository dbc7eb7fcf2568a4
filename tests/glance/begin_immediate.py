"""Makes Glance's SQLite transactions wait for each other; its uWSGI imports this before Glance.

oslo.db begins every transaction as a reader. When two that both go on to write overlap, SQLite refuses one of them at
once with "database is locked", however long its timeout: waiting would be a deadlock. Such requests end in HTTP 500.
"""

from sqlalchemy import Engine, event


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def begin_immediate(connection, cursor, statement, parameters, context, executemany):
    """Takes the write lock with the first statement, where the timeout applies."""
    return "BEGIN IMMEDIATE" if statement == "BEGIN" else statement, parameters
