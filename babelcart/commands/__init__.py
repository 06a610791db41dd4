"""Subcommands of `babelcart`, one module each. Only this package uses Click and DVC, and no other package of the library imports it."""
