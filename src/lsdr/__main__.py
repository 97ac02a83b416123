"""`python -m lsdr` is `lsdr`."""

from lsdr.cli.main import main

main()
