"""A server that answers requests with a trained model."""
