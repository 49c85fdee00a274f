"""Alembic's scripts: `unmask db upgrade` runs them, one transaction a migration."""
