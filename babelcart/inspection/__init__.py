"""Find out what raw files are, and propose the settings that read them."""
