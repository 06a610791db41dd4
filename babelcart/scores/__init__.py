"""Metrics, confidence intervals and slices."""
