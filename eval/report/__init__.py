"""The report of a finished run, and runs compared."""
