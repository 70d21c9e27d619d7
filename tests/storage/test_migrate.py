from storage.migrate import migrate, pending


def test_a_migrated_database_has_nothing_pending(connection):
    assert pending(connection) == []
    assert migrate(connection) == []
