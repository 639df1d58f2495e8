"""Commands that measure, each printing a table or, with --json, one JSON object."""
