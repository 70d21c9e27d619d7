"""The steps between PostgreSQL and the snapshot, a file each; preprocessing.py puts them together."""
