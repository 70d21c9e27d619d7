"""The HTTP side of the service: bodies, routes, problems, keys and limits, metrics and logs.  `flask_app` puts them together."""
