"""Labelled rows: columns, labels, normal forms, languages and category paths."""
