"""The ratio over the depth: shapes, and how they get into a recipe."""
