"""A recipe as text: read, and changed so that comments stay."""
