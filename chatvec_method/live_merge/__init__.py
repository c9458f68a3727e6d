"""A merge as a loaded model, whose ratio is set again in memory."""
