"""Alembic's entry point. Migrates on the connection that harness.app.store.migrate opened."""

from alembic import context

from harness.app.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Batch mode copies a table, because SQLite can alter only little of it.
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
