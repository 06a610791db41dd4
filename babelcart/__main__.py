"""`python -m babelcart` is the command `babelcart`."""

from babelcart.commands.main import main

main(prog_name="babelcart")
