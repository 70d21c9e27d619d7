"""Work that nobody waits for on a connection: the worker on the request table."""
