"""Judgements about a recipe and its models, each with what to write instead."""
