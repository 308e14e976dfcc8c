"""Reads, prepares and stacks the pictures of a chunk, and remembers them if it may.

`passes.py` runs it in threads or worker processes on the way from indices to
batches. A chunk, rather than a picture, travels: grain costs some 50 microseconds
for each thing it passes on, which is more than a small picture takes.
"""

import numpy as np

from keras_mdm.data import transforms
from keras_mdm.data.source import UnusablePicture

CACHE_LIMIT = 512 * 2**20


class Preparation:
    """Turns positions and indices into a chunk of prepared pictures.

    Args:
        source: A `Source`.
        indices: Range of the source indices that can occur.
        seed: Tuple of ints. Crops and flips depend on it and on the positions.
        keep: Tuple of keys of a batch.
        numbers: Tuple of names of an item's numbers that a batch has as well.
        embeddings: `EmbeddingShards` of the captions, or `None`.
        flip: Bool. Whether pictures are mirrored with probability 1/2.
        may_cache: Bool. Whether prepared pictures are kept in memory if all take
            less than `CACHE_LIMIT`.
        options: Dict of arguments of `transforms.prepare`.
    """

    def __init__(
        self,
        source,
        indices,
        seed,
        keep,
        flip,
        may_cache,
        options,
        numbers=(),
        embeddings=None,
    ):
        self.source = source
        self.indices = indices
        self.seed = seed
        self._keep = keep
        self._numbers = numbers
        self._embeddings = embeddings
        self._flip = flip
        self._options = options
        self._pictures_key = "videos" if source.is_video else "images"
        # A random crop is another picture each time.
        self._may_cache = may_cache and options["crop"] == "center"
        # Threads may do the same work twice, with the same result; assigning to a
        # dict is atomic.
        self._cache = {}

    def __call__(self, chunk):
        """Prepares a chunk.

        Args:
            chunk: Pair of int arrays: the positions of the pictures in the endless
                stream (different in each pass) and their indices in the source.

        Returns:
            Pair of the batch (a dict of stacked arrays, `None` if no picture is
            usable) and the list of `UnusablePicture`s.
        """
        positions, indices = chunk
        rng = np.random.default_rng((*self.seed, int(positions[0])))
        elements, captions, unusable = [], [], []
        for index in indices.tolist():
            element = self._cache.get(index)
            if element is None:
                try:
                    element = self._make(index, rng)
                except UnusablePicture as error:
                    # A fresh one, without the traceback and the memory it holds.
                    unusable.append(UnusablePicture(error.what, error.why))
                    continue
                if self._fits(element):
                    self._cache[index] = element
            if "texts" in element:
                # Another caption each time, where a picture has several.
                texts = element["texts"]
                text = texts[rng.integers(len(texts)) if len(texts) > 1 else 0]
                if self._embeddings is not None and text not in self._embeddings:
                    what = self.source.describe(index)
                    why = f"its caption has no embedding: {text[:100]!r}"
                    unusable.append(UnusablePicture(what, why))
                    continue
                captions.append(text)
            elements.append(element)
        if not elements:
            return None, unusable
        batch = {
            key: np.stack([element[key] for element in elements])
            for key in elements[0]
            if key != "texts"
        }
        if "captions" in self._keep:
            batch["captions"] = np.array(captions)
        if self._embeddings is not None:
            batch.update(self._embeddings.look_up(captions))
        if self._flip:
            mirrored = rng.random(len(elements)) < 0.5
            pictures = batch[self._pictures_key]
            pictures[mirrored] = pictures[mirrored, ..., ::-1, :]
        return batch, unusable

    def _make(self, index, rng):
        item = self.source[index]
        pixels = item["video" if self.source.is_video else "image"]
        options = dict(self._options)
        channels, resolution = options.pop("channels"), options["resolution"]
        try:
            square = transforms.choose_square(pixels, rng=rng, **options)
        except transforms.TooSmall as error:
            raise UnusablePicture(self.source.describe(index), str(error)) from error
        side, top, left = square
        numbers = {
            "scale": min(pixels.shape[-3:-1]),
            "crop_top": top * resolution / side,
            "crop_left": left * resolution / side,
            **item.get("numbers", {}),
        }
        missing = [name for name in self._numbers if name not in numbers]
        if missing:
            raise UnusablePicture(
                self.source.describe(index), f"has no number {' and '.join(missing)}"
            )
        pixels = transforms.cut(pixels, square, resolution, channels)
        element = {self._pictures_key: pixels}
        if "labels" in self._keep and "label" in item:
            element["labels"] = np.int32(item["label"])
        if "captions" in self._keep or self._embeddings is not None:
            element["texts"] = item.get("captions") or (item["caption"],)
        for name in self._numbers:
            element[name] = np.float32(numbers[name])
        return element

    def _fits(self, element):
        size = element[self._pictures_key].nbytes
        return self._may_cache and size * len(self.indices) <= CACHE_LIMIT
