"""Adds a folder to an index, and says after each document that it is in."""

import sys

from lsdr.genie.index import Index

if __name__ == "__main__":
    with Index.open(sys.argv[1]) as index:
        index.add([sys.argv[2]], progress=lambda done, total, name: print(name, flush=True))
