"""Multilingual product-search relevance: rows in, an adapter and its F1 out. See README.md."""

__version__ = "0.2.0"
