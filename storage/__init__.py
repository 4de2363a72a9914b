"""Floor 3: what is remembered of jobs over restarts. SQLAlchemy and alembic are used here alone."""
