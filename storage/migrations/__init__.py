"""Alembic's scripts. They import nothing of this package: alembic loads them by path, outside any package."""
