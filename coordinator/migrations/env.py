"""What Alembic runs: always over the connection, and inside the transaction, of the caller."""

from alembic import context

from coordinator.db import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=list(METADATA),
    transactional_ddl=True,
    compare_server_default=True,
)
context.run_migrations()
