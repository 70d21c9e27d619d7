"""From somebody's catalogue to query files: `guess` decides, `files` writes, and the owner reads before anything is run."""
