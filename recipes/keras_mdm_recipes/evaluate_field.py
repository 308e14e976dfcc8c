"""FID and CLIP score of a run: `evaluate.py --fid` and `--clip-score`."""

import itertools

import numpy as np

from keras_mdm_recipes import drawing, fid
from keras_mdm_recipes.sources import open_data

ROUND = 10  # Batches drawn before their features are taken.


class Clip:
    """Scores how well pictures match their captions, from 0 to 100.

    The mean of `max(100 cos, 0)` over pairs, of the embeddings of a CLIP model.

    Args:
        model: str. Name on the Hugging Face hub, or folder, such as
            `"openai/clip-vit-base-patch16"`.

    Reference:
        - [Hessel et al., 2021](https://arxiv.org/abs/2104.08718)
    """

    def __init__(self, model):
        from transformers import CLIPModel, CLIPProcessor

        try:
            self.model = CLIPModel.from_pretrained(model).eval()
            self.processor = CLIPProcessor.from_pretrained(model)
        # Whatever a damaged folder makes its readers raise.
        except Exception as error:
            raise OSError(
                "--clip-score must be a CLIP model of the hub, or a folder of one. "
                f"Received: {model!r} ({error})"
            ) from error

    def scores(self, pictures, captions):
        """Score of each pair, float array of shape `(pictures,)`."""
        import torch

        pictures = np.broadcast_to(pictures, (*pictures.shape[:-1], 3))
        inputs = self.processor(
            text=list(captions),
            images=list(pictures),
            return_tensors="pt",
            padding=True,
            truncation=True,
        )
        with torch.no_grad():
            found = self.model(**inputs)
        cosines = (found.image_embeds * found.text_embeds).sum(dim=-1)
        return np.maximum(100.0 * cosines.numpy(), 0.0)


def check(args, mdm):
    """Raises a `ValueError` if what the flags ask for can't be measured."""
    from keras_mdm.levels import read_level

    if read_level(mdm.resolution)[0] > 1:
        raise ValueError(
            "--fid and --clip-score are of pictures; this run draws clips."
        )
    if args.ema == "sweep":
        raise ValueError(
            "--ema sweep compares by a judge. Give --fid and --clip-score one length "
            "at a time."
        )
    if args.fid is not None and args.num_samples < fid.NUM_SAMPLES:
        raise ValueError(
            f"FID is of {fid.NUM_SAMPLES:,} pictures: of fewer it is larger, and must "
            "not be called that. Leave --fid out for distances with real pictures "
            f"beside. Received: --num-samples {args.num_samples}"
        )
    if args.clip_score is not None and mdm.batch_spec.text is None:
        raise ValueError("--clip-score needs captions; this run is not on text.")


def evaluate(args, settings, mdm, network=None, clip=None):
    """Draws, and takes the distance and the score that the flags ask for.

    Args:
        args: Flags of `evaluate.py`.
        settings: dict of the section `data` of the run's settings.
        mdm: `MDM`.
        network: Optional `fid.Network` or what has its `features`.
        clip: Optional `Clip` or what has its `scores`.

    Returns:
        A pair: seconds of drawing, and a dict with `pictures`, and `fid` and
        `clip_score` if they were asked for.
    """
    from keras_mdm import metrics

    check(args, mdm)
    reference = None
    if args.fid is not None:
        reference = fid.read_reference(args.fid, mdm.resolution)
        network = network or fid.Network()
        _check_size(args.fid, reference, network, mdm)
    if args.clip_score is not None:
        clip = clip or Clip(args.clip_score)
    conditions = _conditions(args, settings, mdm)
    seconds, features, scores = 0.0, [], []
    for begin in range(0, args.num_samples, ROUND * args.batch_size):
        count = min(ROUND * args.batch_size, args.num_samples - begin)
        asked = list(itertools.islice(conditions, count))
        drawn, taken = _draw(args, mdm, asked, args.seed + begin)
        seconds += taken
        for first in range(0, count, args.batch_size):
            part = slice(first, first + args.batch_size)
            if reference is not None:
                features.append(network.features(drawn[part]))
            if args.clip_score is not None:
                scores.append(clip.scores(drawn[part], asked[part]))
        print(f"{begin + count} of {args.num_samples} pictures", flush=True)
    result = {"pictures": args.num_samples}
    if reference is not None:
        found = fid.statistics(np.concatenate(features))
        result["fid"] = metrics.gaussian_distance(*found.values(), *reference.values())
    if args.clip_score is not None:
        result["clip_score"] = float(np.concatenate(scores).mean())
    for key in ("fid", "clip_score"):
        if key in result:
            print(f"{key} of {args.num_samples} pictures: {result[key]:.4g}")
    return seconds, result


def _check_size(path, reference, network, mdm):
    """Raises a `ValueError` if a file has other features than the network's.

    Asked of a black picture, since drawing takes hours.
    """
    black = np.zeros((1, mdm.resolution, mdm.resolution, 3), "uint8")
    size, known = network.features(black).shape[1], len(reference["mu"])
    if known != size:
        raise ValueError(
            f"{path} has {known} features, the network {size}. Write statistics "
            "with `keras-mdm fid-statistics`."
        )


def _conditions(args, settings, mdm):
    """Endless captions of the test split, or labels of all classes alike."""
    spec = mdm.batch_spec
    if spec.text is None:
        return itertools.cycle(range(spec.num_classes or 1))

    source = open_data(settings, args.test_split)
    source.require_captions("--fid or --clip-score")
    count = min(len(source), args.num_samples)
    return itertools.cycle([source[index]["caption"] for index in range(count)])


def _draw(args, mdm, asked, seed):
    """Pictures of captions or labels, and the seconds that they took."""
    spec = mdm.batch_spec
    if spec.text is not None:
        condition = {"prompts": asked}
    elif spec.num_classes is not None:
        condition = {"labels": asked}
    else:
        condition = {"num_samples": len(asked)}
    return drawing.draw(args, mdm, seed=seed, **condition)
