"""Makes the pages that follow from the source: errors, lines of the log, settings, metrics, commands."""
