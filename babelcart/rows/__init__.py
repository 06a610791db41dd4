"""Labelled rows: reading, normal forms, languages, category paths, splits."""
