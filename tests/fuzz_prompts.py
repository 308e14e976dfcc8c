"""Odd prompts: what people paste, in what they keep it in."""

import numpy as np
from text_helpers import FakeEncoder, text_mdm, word_encoder

import keras_mdm
from keras_mdm.sampling.requests import RequestedCondition, read_conditions

# Parted by bars: words, other scripts, marks, commands, and what files and shells mean.
TEXTS = (
    "a red circle|a red circle|blue square|RED||große rote Kreise|红色的圆|٣|"
    "دائرة حمراء|עיגול אדום|\u202eder\u202c|e\u0301|é|👩\u200d👧|🏳️|\u200b|\ud83d|"
    "\udcff red|"
    "a\ud83d\ude00|\x1b[31mred\x1b[0m|a\r\nred|\ufeff|{}|%s|${HOME}|../../red|"
    "<|endoftext|>|</s>|'; --|\"|\\x00|\U0010ffff|\ufffe|ſ|ﬁ|I\u0307|\x85|\u2028|"
    " |\n\t|\0|a\0red\0circle|Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d"
).split("|")
TEXTS += ["red " * 500, "a" * 5000]
OTHERS = (None, 1, 1.5, True, b"red", b"\xff\xfe", [], ["red"], {}, object(), print)
CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "array": lambda texts: np.array(texts, dtype=object),
    "letters": lambda texts: np.array(
        [t if isinstance(t, str) else "x" for t in texts]
    ),
    "iterator": iter,
    "dict": lambda texts: dict.fromkeys(map(str, texts)),
    "nested": lambda texts: [texts],
    "rows": lambda texts: np.array([texts], dtype=object),
    "set": lambda texts: set(map(str, texts)),
    "one": lambda texts: texts[0],
    "bytes": lambda texts: [str(t).encode("utf-8", "surrogatepass") for t in texts],
}


class Prompts:
    """Calls with odd prompts, of models that read words, bytes, and embeddings."""

    def prepare_prompts(self):
        encoder = FakeEncoder()
        embedded = keras_mdm.TextEmbeddings(8, encoder.size, encoder.max_tokens)
        self.readers = [
            text_mdm(word_encoder()),
            text_mdm(keras_mdm.TextEncoder(8, max_tokens=6, num_layers=1, num_heads=2)),
            text_mdm(embedded),
        ]
        self.readers[-1].text_encoder = encoder

    def texts(self):
        """One to three prompts in a container, and those that are strings."""
        rng = self.rng
        texts = [rng.choice(TEXTS) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.25:
            texts[rng.randrange(len(texts))] = rng.choice(OTHERS)
        if rng.random() < 0.05:
            return rng.choice(OTHERS), None
        kind = rng.choice(["list", *CONTAINERS])
        if kind == "letters":  # Its texts can't end in zeros.
            texts = [str(text).rstrip("\0") for text in texts]
        plain = texts if kind in ("list", "tuple", "array", "letters") else None
        return CONTAINERS[kind](list(texts)), plain

    def try_prompts(self):
        mdm, (given, texts) = self.rng.choice(self.readers), self.texts()
        negative = self.texts()[0] if self.rng.random() < 0.3 else None
        conditioner = mdm.network.conditioner

        def draw():
            drawn = mdm.generate(
                given, negative_prompt=negative, num_steps=1, guidance_scale=2.0
            )
            assert drawn.shape[1:] == (8, 8, 1) and drawn.dtype == np.uint8
            assert texts is None or len(drawn) == len(texts)

        def read():
            asked = (
                RequestedCondition(given),
                RequestedCondition(negative, negative=True),
            )
            found, _, total = read_conditions(*asked, conditioner, 2, True)
            assert texts is None or total == 2 * len(texts)
            assert all(np.isfinite(array).all() for array in found.values())

        # Each number of pictures is another program to compile.
        call = draw if self.rng.random() < 0.1 else read
        return call, {"prompts": given, "negative_prompt": negative}

    def try_captions(self):
        mdm, (given, texts) = self.rng.choice(self.readers), self.texts()
        count = len(texts) if texts is not None else self.rng.randint(1, 3)
        batch = {"images": np.zeros((count, 8, 8, 1), "float32"), "captions": given}

        def call():
            found = mdm.batch_spec.prepare(batch)
            if texts is not None and all(isinstance(t, str) for t in texts):
                # As each by itself, whatever is beside it.
                for index, text in enumerate(texts):
                    alone = mdm.batch_spec.text.encode_texts([text], warn=False)
                    for name, array in alone.items():
                        np.testing.assert_array_equal(found[name][index], array[0])

        return call, {"captions": given}

    def try_vocabulary(self):
        given = self.texts()[0]

        def call():
            keras_mdm.TextEncoder(8, vocabulary=given, max_tokens=6, num_heads=2)

        return call, {"vocabulary": given}

    def try_found_vocabulary(self):
        given = self.texts()[0]
        return lambda: keras_mdm.conditioning.find_vocabulary(given), {"texts": given}
