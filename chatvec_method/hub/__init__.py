"""What is asked of the Hugging Face hub, beyond the files of a model, and what is put there."""
