"""From the log to those who watch it."""
