"""What mergekit calls: the merge method `chat_vector`, and what it refuses."""
