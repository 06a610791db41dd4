"""The model: prompts, packing, forward pass, loading, p(relevant)."""
