"""The report of `compare.py`."""


def write(folder):
    raise NotImplementedError(folder)
