"""The schema's history, for Alembic: `upgrade(url)` brings a database to the newest version."""
