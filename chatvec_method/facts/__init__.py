"""All that is known of a merge before any weight is read."""
