"""Where the tests keep what outlives them."""

import os

from config import PROJECT_ROOT

# The home of the embedded server, one for each process that shares the tests.
SERVER = PROJECT_ROOT / ".local" / "-".join(["tests", *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")])])
