"""`python -m chatvec_method` is the command `chatvec`."""

from chatvec_method.cli import main

main(prog_name="chatvec")
