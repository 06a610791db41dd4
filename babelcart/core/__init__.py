"""Settings, errors and files; used by every other package."""
