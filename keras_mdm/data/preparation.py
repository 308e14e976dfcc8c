"""Reads, prepares and stacks the pictures of a chunk, and remembers them if it may.

`passes.py` runs it in threads or worker processes on the way from indices to
batches. A chunk, rather than a picture, travels: grain costs some 50 microseconds
for each thing it passes on, which is more than a small picture takes.
"""

import dataclasses

import numpy as np

from keras_mdm.data import transforms
from keras_mdm.data.source import Source, UnusablePicture


@dataclasses.dataclass
class Preparation:
    """Turns positions and indices into a chunk of prepared pictures.

    Args:
        source, keep, micro_conditioning, embeddings, flip, channels: Of `make_dataset`.
        seed: Int. Crops, captions and flips depend on it and on a picture's position.
        may_cache: Bool. Whether prepared pictures, always the same, are kept in memory.
        square: Dict of arguments of `transforms.choose_square`.
    """

    source: Source
    seed: int
    keep: tuple
    micro_conditioning: tuple
    embeddings: object
    flip: bool
    may_cache: bool
    channels: int
    square: dict

    def __post_init__(self):
        self._pixels = "videos" if self.source.is_video else "images"
        # Threads may do the same work twice, with the same result; assigning to a
        # dict is atomic.
        self._cache = {}

    def __call__(self, chunk):
        """The batch of a chunk, and the list of its `UnusablePicture`s.

        A chunk is a pair: the positions of the pictures in the endless stream
        (different in each pass), and their indices in the source or rows of its
        `stream`. The batch is a dict of stacked arrays, `None` if no picture is usable.
        """
        positions, indices = chunk
        elements, captions, mirrored, unusable = [], [], [], []
        indices = indices if isinstance(indices, list) else indices.tolist()
        for position, index in zip(positions.tolist(), indices, strict=True):
            # Of each picture, so that it is the same however many read the data.
            rng = np.random.default_rng((self.seed, position))
            try:
                element, texts = self._element(index, rng)
                if texts:
                    captions.append(self._choose_caption(index, texts, rng))
                elements.append(element)
                mirrored.append(rng.random() < 0.5)
            except UnusablePicture as error:
                # A fresh one, without the traceback and the memory it holds.
                unusable.append(UnusablePicture(error.what, error.why))
        if not elements:
            return None, unusable
        batch = {key: np.stack([e[key] for e in elements]) for key in elements[0]}
        if "captions" in self.keep:
            batch["captions"] = np.array(captions)
        if self.embeddings is not None:
            batch.update(self.embeddings.look_up(captions))
        if self.flip:
            pixels = batch[self._pixels]
            pixels[mirrored] = pixels[mirrored, ..., ::-1, :]
        return batch, unusable

    def _choose_caption(self, index, texts, rng):
        """Another caption each time, where a picture has several."""
        text = texts[rng.integers(len(texts)) if len(texts) > 1 else 0]
        if self.embeddings is not None and text not in self.embeddings:
            why = f"its caption has no embedding: {text[:100]!r}"
            raise UnusablePicture(self.source.describe(index), why)
        return text

    def _element(self, index, rng):
        """What a batch has of a picture, and its captions."""
        if self.may_cache and index in self._cache:
            return self._cache[index]
        item = self.source.read(index)
        pixels = item["video" if self.source.is_video else "image"]
        try:
            square = transforms.choose_square(pixels, rng=rng, **self.square)
        except transforms.TooSmall as error:
            raise UnusablePicture(self.source.describe(index), str(error)) from error
        side, top, left = square
        resolution = self.square["resolution"]
        known = {
            "scale": min(pixels.shape[-3:-1]),
            "crop_top": top * resolution / side,
            "crop_left": left * resolution / side,
            **item.get("micro_conditioning", {}),
        }
        missing = [name for name in self.micro_conditioning if name not in known]
        if missing:
            raise UnusablePicture(
                self.source.describe(index), f"has no number {' and '.join(missing)}"
            )
        pixels = transforms.cut(pixels, square, resolution, self.channels)
        element = {self._pixels: pixels}
        if "labels" in self.keep and "label" in item:
            element["labels"] = np.int32(item["label"])
        for name in self.micro_conditioning:
            element[name] = np.float32(known[name])
        texts = ()
        if "captions" in self.keep or self.embeddings is not None:
            texts = item.get("captions") or (item["caption"],)
        if self.may_cache:
            self._cache[index] = element, texts
        return element, texts
