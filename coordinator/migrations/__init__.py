"""Alembic's migrations of the coordinator's database, run by `coordinator.db.migrate`. A revision that was released never changes."""
