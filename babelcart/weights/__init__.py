"""Download of base models, and of packages that contain model files."""
