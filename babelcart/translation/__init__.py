"""Translation of labelled rows: engines, translation memory, quality checks."""
