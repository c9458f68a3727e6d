"""A chat vector as a file: chat − base, extracted once, shared, added to any cp of that base."""
