"""Which pictures belong together: variants of one thing, and near-duplicates.

Pictures of a group are all in the same split, so that none that was held out from
training has a twin that was not.
"""

import numpy as np

_SIDE = 32


def thumbnail(picture):
    """A picture as a vector in which a difference of brightness counts for nothing.

    Args:
        picture: uint8 array `(height, width, 3)`.

    Returns:
        float32 array of unit length, or zeros for a picture of one color.
    """
    from PIL import Image

    small = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    vector = np.asarray(small, "float32").reshape(-1, 3)
    vector = (vector - vector.mean(0)).ravel()
    return vector / max(np.linalg.norm(vector), 1e-6)


def near_duplicates(thumbnails, least, rows=512):
    """Pairs of pictures that are nearly the same, up to brightness.

    Args:
        thumbnails: float array `(pictures, size)` of `thumbnail`s.
        least: float. Correlation from which two are near-duplicates.
        rows: int. Pictures that are compared with all others at once.

    Returns:
        List of `(index, larger index)`.
    """
    pairs = []
    for start in range(0, len(thumbnails), rows):
        alike = thumbnails[start : start + rows] @ thumbnails.T >= least
        pairs += [(start + i, j) for i, j in np.argwhere(alike) if start + i < j]
    return pairs


def find_groups(bases, pairs):
    """The group of each picture: those of one base, or of a pair, are in one.

    Args:
        bases: Sequence of str, one for each picture.
        pairs: Iterable of pairs of indices.

    Returns:
        List of str: of each picture, the first base of its group.
    """
    parent = {base: base for base in bases}

    def find(base):
        while parent[base] != base:
            base = parent[base]
        return base

    for one, other in pairs:
        first, second = sorted((find(bases[one]), find(bases[other])))
        parent[second] = first
    return [find(base) for base in bases]
