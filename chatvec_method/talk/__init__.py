"""A speaker and a conversation."""
