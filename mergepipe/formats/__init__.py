"""What checkpoint files look like: safetensors, Hugging Face directories, trees of files."""
