"""Negative sampling and its audit."""
