"""Conditioners on text: masks, null condition, configurations, attached encoders."""

import keras
import numpy as np
import pytest
from helpers import randomize, to_numpy
from text_helpers import FakeEncoder, word_encoder

import keras_mdm


@pytest.fixture(scope="module")
def encoder():
    encoder = word_encoder()
    encoder.build()
    return randomize(encoder)


def _call(layer, features, drop=None):
    features = {k: keras.ops.convert_to_tensor(v) for k, v in features.items()}
    drop = None if drop is None else keras.ops.convert_to_tensor(drop)
    return to_numpy(layer(features, drop=drop))


def test_tokens_do_not_depend_on_padding(encoder):
    """The same text in a longer row, by the weights of the shorter one."""
    longer = word_encoder(max_tokens=9)
    longer.build()
    for new, old in zip(longer.variables, encoder.variables, strict=True):
        value = keras.ops.convert_to_numpy(old)
        if new.name == "positions":
            value = np.concatenate([value, np.full((3, 8), 7.0, "float32")])
        new.assign(value)
    short, mask = _call(encoder, encoder.encode_texts(["a red circle"]))
    long, long_mask = _call(longer, longer.encode_texts(["a red circle"]))
    assert mask.tolist() == [[True] * 4 + [False] * 2]
    assert long_mask.sum() == 4
    np.testing.assert_allclose(short[:, :4], long[:, :4], atol=1e-5)


def test_word_order_matters(encoder):
    texts = ["red circle blue square", "blue circle red square"]
    tokens, _ = _call(encoder, encoder.encode_texts(texts))
    assert np.abs(tokens[0].mean(0) - tokens[1].mean(0)).max() > 1e-3


def test_dropped_is_the_empty_text(encoder):
    features = encoder.encode_texts(["a red circle", "a blue square"])
    tokens, mask = _call(encoder, features, np.array([True, False]))
    empty, empty_mask = _call(encoder, encoder.encode_texts([" "]))
    kept, _ = _call(encoder, features)
    np.testing.assert_allclose(tokens[0], empty[0], atol=1e-5)
    np.testing.assert_array_equal(mask[0], empty_mask[0])
    np.testing.assert_allclose(tokens[1], kept[1], atol=1e-5)


@pytest.mark.parametrize("vocabulary", [None, ["red", "blue"]])
def test_configuration_round_trip(vocabulary):
    encoder = keras_mdm.TextEncoder(16, vocabulary, max_tokens=7, num_layers=3)
    again = keras_mdm.TextEncoder.from_config(encoder.get_config())
    assert again.get_config() == encoder.get_config()
    assert np.array_equal(
        again.encode_texts(["red"])["token_ids"],
        encoder.encode_texts(["red"])["token_ids"],
    )


def test_what_is_cut_and_what_is_unknown_is_told(encoder):
    with pytest.warns(UserWarning) as told:
        encoder.encode_texts(["red red red red red blue square", "a dog"], "prompts")
    assert "1 of 2 texts are longer than the 6 tokens" in str(told[0].message)
    assert "'blue square' of 'red red" in str(told[0].message)
    assert "['dog']" in str(told[1].message)


@pytest.mark.parametrize("wrong", [[3], ["a", None], np.array([1.5])])
def test_what_is_no_string_is_refused(encoder, wrong):
    with pytest.raises(ValueError, match="`captions` must be strings. Received: "):
        encoder.encode_texts(wrong)


def test_attached_encoder_pads_and_empties():
    layer = keras_mdm.TextEmbeddings(8, max_tokens=5)
    layer.encoder = fake = FakeEncoder()
    with pytest.warns(UserWarning, match="1 of 3 texts.*the last 1 of its 6 tokens"):
        features = layer.encode_texts(["red circle", "", "a b c d e f g"])
    assert features["text_embeddings"].shape == (3, 5, 8)
    assert features["text_mask"].sum(axis=1).tolist() == [3, 1, 5]
    assert not features["text_embeddings"][1].any()
    expected, _ = fake.encode(["red circle"])
    np.testing.assert_array_equal(features["text_embeddings"][0, :3], expected[0, :3])
    # The empty text is what dropped samples are given.
    tokens, mask = _call(layer, features, np.array([True, False, False]))
    np.testing.assert_array_equal(tokens[0], tokens[1])
    np.testing.assert_array_equal(mask[0], mask[1])


def test_what_an_attached_encoder_cuts_is_told():
    class Telling(FakeEncoder):
        def find_cut(self, texts):
            return [(text, text.split(maxsplit=5)[5]) for text in texts]

    layer = keras_mdm.TextEmbeddings(8)
    layer.encoder = Telling()
    with pytest.warns(UserWarning, match="Cut off: 'f g' of 'a b c d e f g'"):
        layer.encode_texts(["a b c d e f g"])


def test_encoder_of_another_width_is_refused():
    layer = keras_mdm.TextEmbeddings(16)
    with pytest.raises(ValueError, match="size 16.*Received: size 8"):
        layer.encoder = FakeEncoder()


def test_without_an_encoder_texts_are_refused():
    layer = keras_mdm.TextEmbeddings(16, encoder_name="google/flan-t5-xl")
    with pytest.raises(ValueError, match="no text encoder is attached.*flan-t5-xl"):
        layer.encode_texts(["a"])


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            {"text_embeddings": np.zeros((2, 3, 4))},
            r"\(batch, tokens, 8\).*\(2, 3, 4\)",
        ),
        ({"text_embeddings": np.zeros((2, 8))}, r"\(2, 8\)"),
        (
            {"text_embeddings": np.zeros((2, 3, 8)), "text_mask": np.ones((2, 4))},
            r"'text_mask' must have the shape \(2, 3\)",
        ),
    ],
)
def test_embeddings_of_another_shape_are_refused(features, words):
    with pytest.raises(ValueError, match=words):
        keras_mdm.TextEmbeddings(8).check_features(features)
