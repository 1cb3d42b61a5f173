"""What Alembic runs: on a connection it was given, or on one it opens to a SQLite file."""

import sqlalchemy as sa
from alembic import context

from paddock.store import schema


def _migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=schema.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_given = context.config.attributes.get("connection")
if _given is not None:
    _migrate(_given)
else:
    # No pool: the last connection to close puts the log back into the file.
    with sa.create_engine(context.config.attributes["url"], poolclass=sa.NullPool).connect() as _opened:
        _migrate(_opened)
        _opened.commit()
