"""Everything that speaks SQL: the embedded server, connections, migrations, the user's tables, the queue of requests."""
