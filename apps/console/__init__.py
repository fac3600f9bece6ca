"""What a terminal shows: progress, exit codes, one-line errors."""
