"""Download of base models and of packages that carry data."""
