"""One runnable file per claim: `python -m benchmarks.NAME`; results as JSON lines with the machine beside them."""
