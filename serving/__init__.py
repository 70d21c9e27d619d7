"""From a checkpoint with its encoders to ranked songs: scoring, reasons, micro-batches, replacement while running."""
