"""Rows of labelled data: reading, normalisation, languages, category paths, splits."""
