"""The frozen T5 text encoder of the published models, from keras-hub's layers.

Needs `keras-mdm[text]`, which is imported when an encoder is made.
"""

import numpy as np

from keras_mdm.checks import check_whole
from keras_mdm.conditioning import t5_files
from keras_mdm.conditioning.t5_model import load_encoder, mask_is_an_argument
from keras_mdm.conditioning.tokenizers import as_strings
from keras_mdm.paths import member
from keras_mdm.text_files import reason

MAX_TOKENS = 128
_MAX_VOCABULARY = 2**26  # Bytes: that of mT5 has 4 million.
# Texts are padded to a multiple of this, so that few shapes are compiled. What is
# padded changes nothing: it is masked, and cut off again.
_LENGTH_STEP = 32


class T5Encoder:
    """Turns texts into embeddings as the published models take them.

    The weights are frozen. Made by `T5Encoder.from_hugging_face`.

    Args:
        model: Keras model of token ids and padding mask.
        tokenizer: keras-hub `T5Tokenizer`.
        size: int. Size of an embedding.
        max_tokens: int. Longer texts are cut, the end token stays. Defaults to 128.

    Example:

    ```python
    encoder = T5Encoder.from_hugging_face("flan-t5-xl", dtype="bfloat16")
    embeddings, mask = encoder.encode(["a red circle", ""])  # (2, 5, 2048), (2, 5)
    ```
    """

    def __init__(self, model, tokenizer, size, max_tokens=MAX_TOKENS):
        model.trainable = False
        self.model = model
        self.tokenizer = tokenizer
        self.size = size
        self.max_tokens = max_tokens

    @classmethod
    def from_hugging_face(cls, folder, dtype="float32", max_tokens=MAX_TOKENS):
        """Reads the encoder and the vocabulary of a T5 model.

        The decoder, if the folder has it, is left alone; weights are read one after
        the other.

        Args:
            folder: str or path. Folder with `config.json`, `spiece.model` and
                safetensors files, such as a copy of `google/flan-t5-xl`, or one that
                `tools/convert_t5.py` wrote; or `hf://user/repository`.
            dtype: str. `"float32"` (default) or `"bfloat16"`, which halves the
                memory. T5 overflows in float16.
            max_tokens: int. Defaults to 128, as the published models were trained.

        Raises:
            ValueError: if files are missing or damaged, or the model is no T5.
        """
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(
                "`dtype` must be 'float32' or 'bfloat16'; T5 overflows in float16. "
                f"Received: dtype={dtype!r}"
            )
        check_whole(2, max_tokens=max_tokens)
        folder = t5_files.find_folder(folder)
        vocabulary = member(folder, t5_files.VOCABULARY)
        if not vocabulary.is_file():
            raise ValueError(f"'{vocabulary}' is missing: the SentencePiece model.")
        model = load_encoder(folder, dtype)
        tokenizer = read_vocabulary(vocabulary)
        return cls(model, tokenizer, model.hidden_dim, max_tokens)

    def tokenize(self, texts):
        """Token ids of texts, each with the end token.

        The empty text is one blank token, as in the official code, which puts a blank
        before every text.

        Args:
            texts: List of str.

        Returns:
            A list of lists of int.
        """
        blank = self.tokenizer.token_to_id("\N{LOWER ONE EIGHTH BLOCK}")
        end = self.tokenizer.end_token_id
        rows = []
        for text in texts:
            ids = [int(i) for i in self.tokenizer(text)] if text.strip() else [blank]
            rows.append(ids[: self.max_tokens - 1] + [end])
        return rows

    def find_cut(self, texts):
        """Texts that are too long, each with the part that `encode` cuts off.

        Args:
            texts: List of str.

        Returns:
            List of pairs of str.
        """
        cut = []
        for text in texts:
            rest = [int(i) for i in self.tokenizer(text)][self.max_tokens - 1 :]
            if rest:
                cut.append((text, str(self.tokenizer.detokenize(rest))))
        return cut

    def encode(self, texts):
        """Embeds texts; they are padded to the longest of them.

        The published models attend to the padding, so what is sampled for a text
        depends a little on the length of those beside it: encode a text and its
        negative together, as the official code does.

        Args:
            texts: List of str.

        Returns:
            A pair of arrays: embeddings, float32 of shape `(batch, tokens, size)` with
            zeros for padding, and a bool mask of shape `(batch, tokens)`, true for
            tokens.

        Raises:
            ValueError: if `texts` are no strings, or none.
        """
        texts = list(as_strings(texts, "texts"))
        if not texts:
            raise ValueError("`texts` must have at least one text. Received: none")
        rows = self.tokenize(texts)
        longest = max(len(row) for row in rows)
        padded = -(-longest // _LENGTH_STEP) * _LENGTH_STEP
        ids = np.full((len(rows), padded), self.tokenizer.pad_token_id, "int32")
        mask = np.zeros((len(rows), padded), "bool")
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        inputs = {"token_ids": ids, "padding_mask": mask.astype("int32")}
        with mask_is_an_argument():
            embeddings = self.model.predict_on_batch(inputs)
        embeddings = np.asarray(embeddings).astype("float32") * mask[:, :, None]
        return embeddings[:, :longest], mask[:, :longest]


def read_vocabulary(path):
    """The tokenizer of a SentencePiece model.

    Raises:
        ValueError: if the file is none.
    """
    from keras_hub.tokenizers import T5Tokenizer

    try:
        if path.stat().st_size > _MAX_VOCABULARY:
            raise ValueError(f"it has more than {_MAX_VOCABULARY} bytes")
        return T5Tokenizer(proto=str(path), dtype="int32")
    # Whatever a damaged file makes SentencePiece and TensorFlow raise.
    except Exception as error:
        raise ValueError(
            f"'{path}' is damaged: it is no SentencePiece model of T5. {reason(error)}"
        ) from error
