"""Strings go in as strings: `fit` on captions, `generate` from prompts."""

import keras
import numpy as np
import pytest
from helpers import batch_of, counting, randomize, tiny_mdm, values_of
from text_helpers import FakeEncoder, text_mdm, word_encoder

import keras_mdm

pytestmark = pytest.mark.usefixtures("eager_functions")

TEXTS = ["a red circle", "a blue square", "", "red"]


def _batch():
    return {**batch_of(4, 8, classes=0), "captions": np.array(TEXTS)}


def _mdm(**options):
    mdm = text_mdm(word_encoder(), **options)
    mdm.compile(keras.optimizers.SGD(0.05))
    return mdm


@pytest.fixture(scope="module")
def drawer():
    mdm = text_mdm(word_encoder(), sampling={"num_steps": 2, "guidance_scale": 2.0})
    randomize(mdm.network)
    return mdm


def _draw(mdm, *args, **options):
    return mdm.generate(*args, **{"seed": 0, "output": "float", **options})


def _grain(batch):
    import grain

    rows = [{key: value[i] for key, value in batch.items()} for i in range(4)]
    return grain.MapDataset.source(rows).to_iter_dataset().batch(4)


def _tf_data(batch):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(batch).batch(4, drop_remainder=True)


class _Pairs(keras.utils.PyDataset):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return (self.batch,)


KINDS = {
    "arrays": lambda batch: batch,
    "list": lambda batch: {**batch, "captions": TEXTS},
    "grain": _grain,
    "tf.data": _tf_data,
    "PyDataset": _Pairs,
    "generator": lambda batch: iter([batch]),
}


@pytest.fixture(scope="module")
def trainee():
    """A compiled model, its first values, and those after a step on tokens by hand."""
    mdm = _mdm()
    first = values_of(mdm.variables)
    tokens = {"token_ids": np.zeros((4, 6), "int32"), "images": _batch()["images"]}
    # Words are numbered from 3 in the order of the vocabulary; 1 ends a text.
    for row, ids in enumerate([[3, 6, 5, 1], [3, 4, 7, 1], [1], [6, 1]]):
        tokens["token_ids"][row, : len(ids)] = ids
    mdm.fit(tokens, batch_size=4, shuffle=False, verbose=0)
    return mdm, first, values_of(mdm.network.variables)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_takes_captions_from_every_kind_of_data(kind, trainee):
    mdm, first, expected = trainee
    for variable, value in zip(mdm.variables, first, strict=True):
        variable.assign(value)
    data = KINDS[kind](_batch())
    size = 4 if isinstance(data, dict) else None
    # Shuffled rows would meet other noise.
    mdm.fit(data, batch_size=size, shuffle=False, verbose=0)
    for mine, wanted in zip(values_of(mdm.network.variables), expected, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)


def test_fit_trains_the_encoder():
    mdm = _mdm(condition_dropout=0.0)
    randomize(mdm.network)
    before = values_of(mdm.network.conditioner.variables)
    mdm.fit(_batch(), batch_size=4, verbose=0)
    after = values_of(mdm.network.conditioner.variables)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))


def test_fit_on_captions_with_an_attached_encoder():
    mdm = text_mdm(keras_mdm.TextEmbeddings(8, max_tokens=6))
    mdm.compile(keras.optimizers.SGD(0.05))
    with pytest.raises(ValueError, match="no text encoder is attached"):
        mdm.fit(_batch(), verbose=0)
    mdm.text_encoder = FakeEncoder()
    first = mdm.evaluate(_batch(), verbose=0, return_dict=True)["loss"]
    embeddings = mdm.network.conditioner.encode_texts(TEXTS)
    batch = {"images": _batch()["images"], **embeddings}
    again = mdm.evaluate(batch, verbose=0, return_dict=True)["loss"]
    assert first == pytest.approx(again, rel=1e-5)
    assert mdm.fit(_batch(), batch_size=4, verbose=0).history["loss"]


@pytest.mark.parametrize("negative", [None, "a blue square"])
def test_prompts_of_released_models_are_as_the_encoder_makes_them(negative):
    """Such a model attends to padding, so its length and the empty text's count."""
    conditioner = keras_mdm.TextEmbeddings(8, max_tokens=12, as_encoded=True)
    mdm = text_mdm(conditioner, masked_attention=False)
    randomize(mdm.network)
    prompt, encoder = "a red circle", FakeEncoder()
    embeddings, mask = encoder.encode([prompt, negative or ""])
    longest = mask.sum(axis=1).max()
    embeddings, mask = embeddings[:, :longest], mask[:, :longest]
    options = {"guidance_scale": 3.0, "seed": 0, "output": "float"}
    features = {"text_embeddings": embeddings[:1], "text_mask": mask[:1]}
    with pytest.raises(ValueError, match="negative_features.*text_encoder"):
        mdm.generate(features=features, **options)
    wanted = mdm.generate(
        features=features,
        negative_features={"text_embeddings": embeddings[1:], "text_mask": mask[1:]},
        **options,
    )
    mdm.text_encoder = encoder
    found = mdm.generate(prompt, negative_prompt=negative, **options)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    if negative is None:
        found = mdm.generate(features=features, **options)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    alone = mdm.generate(prompt, **{**options, "guidance_scale": 1.0})
    padded = {
        "text_embeddings": np.pad(
            features["text_embeddings"], [(0, 0), (0, 8), (0, 0)]
        ),
        "text_mask": np.pad(features["text_mask"], [(0, 0), (0, 8)]),
    }
    longer = mdm.generate(features=padded, **{**options, "guidance_scale": 1.0})
    assert np.abs(alone - longer).max() > 1e-3


def test_models_without_text_ignore_captions():
    mdm = tiny_mdm(1, classes=0)
    mdm.compile("sgd")
    batch = {**batch_of(4, 8, classes=0), "captions": np.array(TEXTS)}
    assert np.isfinite(mdm.evaluate(batch, verbose=0)[0])


def test_prompts_and_samples(drawer):
    whole = _draw(drawer, TEXTS[:2], num_samples=2)
    assert whole.shape == (4, 8, 8, 1)
    single = _draw(drawer, TEXTS[1], seed=3)
    np.testing.assert_allclose(whole[3], single[0], atol=1e-4)
    assert np.abs(whole[0] - _draw(drawer, TEXTS[1])[0]).max() > 1e-3


def test_empty_prompt_is_the_null_condition(drawer):
    """At scale 0 guidance shows its null half alone, whatever the prompt."""
    empty = _draw(drawer, "", guidance_scale=1.0)
    null = _draw(drawer, "a red circle", guidance_scale=0.0)
    np.testing.assert_allclose(empty, null, atol=1e-4)


def test_negative_prompt_stands_in_the_place_of_the_null_condition(drawer):
    negative = _draw(drawer, "a red circle", negative_prompt="red", guidance_scale=0.0)
    only = _draw(drawer, "red", guidance_scale=1.0)
    np.testing.assert_allclose(negative, only, atol=1e-4)
    both = _draw(drawer, TEXTS[:2], negative_prompt=["red", ""])
    np.testing.assert_allclose(both[1], _draw(drawer, TEXTS[1], seed=1)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ([TEXTS[:3]], {"negative_prompt": TEXTS[:2]}, "`negative_prompt`.*3.*: 2"),
        ([[3]], {}, "`prompts` must be strings"),
        (["a"], {"negative_prompt": [3]}, "`negative_prompt` must be strings"),
        (["a"], {"negative_prompt": "a", "guidance_scale": 1}, "other than 1"),
        ([[]], {}, "at least one"),
        ([], {}, r"`prompts` \(strings\), or as `features`"),
        (["a"], {"labels": 3}, "not class-conditional"),
        ([], {"features": {"token_ids": np.zeros((1, 5), int)}}, r"\(batch, 6\)"),
        ([], {"features": {"token_ids": np.full((1, 6), 99)}}, "from 0 to 7"),
    ],
)
def test_wrong_requests(drawer, args, options, words):
    with pytest.raises(ValueError, match=words):
        _draw(drawer, *args, **options)


def test_prompts_for_a_model_on_labels():
    with pytest.raises(ValueError, match="not conditional on text.*`labels`"):
        tiny_mdm(1).generate([0, 1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"captions": None}, r"lacks 'captions' \(strings\) or \['token_ids'\]"),
        ({"captions": [1, 2, 3, 4]}, "`captions` must be strings. Received: 1 of"),
        ({"captions": TEXTS[:3]}, "'token_ids' has 3 entries for 4 images"),
    ],
)
def test_wrong_captions_are_told_before_the_first_step(changes, words):
    mdm = _mdm()
    batch = {k: v for k, v in {**_batch(), **changes}.items() if v is not None}
    with counting(mdm, "train_step") as steps:
        for data in (batch, iter([batch]), _Pairs(batch)):
            with pytest.raises(ValueError, match=words):
                mdm.fit(data, verbose=0)
    assert not steps


def test_the_condition_is_encoded_once_a_run(drawer):
    """Keys and values are made while tracing `prepare`, none inside the loop."""
    mdm = text_mdm(word_encoder(), sampling={"num_steps": 3, "guidance_scale": 2.0})
    attention = mdm.network.down_blocks[0].attentions[0]
    with counting(attention, "keys_values") as calls:
        mdm.generate("a", callback=lambda *_: None)
    assert len(calls) == 1
