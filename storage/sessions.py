"""Who else of ours is connected to the database."""

from storage.connections import Connection, expected_errors
from storage.named import SQL_FOLDER, queries

_SQL = queries(SQL_FOLDER / "sessions.sql")


def has_session_beside(connection: Connection) -> bool:
    """Whether the same role, program and address has another session in this database.  Raises DatabaseError."""
    with expected_errors():
        row = connection.execute(_SQL["has_session_beside"]).fetchone()
    assert row is not None
    found: bool = row[0]
    return found
