"""The HTTP service under load, beside the handler that one would write first."""
