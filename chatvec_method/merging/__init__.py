"""The safe run from a recipe to a folder that is complete and verified."""
