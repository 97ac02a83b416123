"""States that workers die over, in a module that worker processes can import."""

import os
import signal
import time
from pathlib import Path

from lsdr.regression.gram import Gram


class Deadly(Gram):
    """Kills the process that works on the row whose target is 1000, as many times as asked for."""

    def __init__(self, blocks, folder, deaths):
        super().__init__(blocks)
        self.folder = folder
        self.deaths = deaths

    def add(self, batch):
        with (Path(self.folder) / f"worked-{int(batch.y[0])}").open("a") as file:
            file.write(f"{os.getpid()}\n")
        died = len(list(Path(self.folder).glob("died-*")))
        if 1000 in batch.y and died < self.deaths:
            (Path(self.folder) / f"died-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().add(batch)


class Slow(Gram):
    """Says which process works, and takes long."""

    def __init__(self, blocks, folder):
        super().__init__(blocks)
        self.folder = folder

    def add(self, batch):
        (Path(self.folder) / str(os.getpid())).touch()
        time.sleep(8)


class Odd(Exception):
    """Cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(one)


class Raising(Gram):
    """Fails on the rows of one part."""

    def __init__(self, blocks, odd=False):
        super().__init__(blocks)
        self.odd = odd

    def add(self, batch):
        if 1000 in batch.y:
            raise Odd("first", "second") if self.odd else KeyError("part 0")
        print("noise on standard output")
        super().add(batch)
