"""Read rows and labels from raw files and queries."""
