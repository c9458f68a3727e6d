"""A merge's output made ready to chat."""
