"""A recipe from the names of its models, each of its lines with a reason."""
