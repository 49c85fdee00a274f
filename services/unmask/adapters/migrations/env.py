"""What Alembic runs: the migrations over the connection that `unmask.adapters.migrate` hands it."""

from __future__ import annotations

from alembic import context

from unmask.adapters.store_tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
