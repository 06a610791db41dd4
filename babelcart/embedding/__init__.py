"""Text embeddings, nearest-neighbour search and similarity."""
