"""Output to a terminal: progress, exit codes, one-line errors."""
