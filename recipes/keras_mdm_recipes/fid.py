"""Writes the statistics of real pictures that FID is measured from.

    keras-mdm fid-statistics folder:pictures --resolution 64 --output reference.npz
    keras-mdm evaluate runs/pictures --fid reference.npz

Needs `pip install keras-mdm[fid]`. The features are those of the Inception network of
2015 as torch-fidelity has it, whose weights are fetched once; the file has `mu` and
`sigma`, as those of other packages have. Pictures are prepared as for training: the
largest centered square, averaged down to the resolution.

FID is of 50,000 drawn pictures. It falls with their number, so `evaluate` refuses
fewer; without `--fid` it prints distances, with those of real pictures beside.
"""

import os
import pathlib

import numpy as np

from keras_mdm_recipes import start
from keras_mdm_recipes.sources import LIMITS_HELP, open_data

NUM_SAMPLES = 50_000
NAMES = ("mu", "sigma")
MAX_BYTES = 2**28  # Of statistics, those of 4,000 features.
NETWORK, LAYER = "inception-v3-compat", "2048"  # Names that torch-fidelity has.


def parse_arguments(arguments=None):
    parser = start.make_parser(__doc__)
    add = parser.add_argument
    add("source", help="such as folder:PATH; what --dataset of the recipes takes")
    add("--split", default="train", help="of the source")
    add("--data-dir", help="folder of prepared TFDS sets")
    add("--limits", type=start.limits, help=LIMITS_HELP)
    add("--resolution", type=int, required=True, help="of the model, in pixels")
    add("--upscale", action="store_true", help="enlarge smaller pictures")
    add("--batch-size", type=int, default=100, help="pictures in the network at once")
    add("--output", type=start.path, required=True, help="the .npz file to write")
    return parser.parse_args(arguments)


class Network:
    """The network whose features are compared, of torch-fidelity."""

    def __init__(self):
        import torch
        from torch_fidelity.utils import create_feature_extractor

        self.on_gpu = torch.cuda.is_available()
        try:
            self.network = create_feature_extractor(
                NETWORK, [LAYER], cuda=self.on_gpu, verbose=False
            )
        except OSError as error:
            raise OSError(
                f"the weights of {NETWORK!r} can't be fetched ({error}). Where there "
                "is internet, torch-fidelity leaves them under the folder that "
                f"`torch.hub.get_dir()` names: copy its file to {torch.hub.get_dir()}."
            ) from error

    def features(self, pictures):
        """Features, float32 of shape `(pictures, size)`, of uint8 pictures.

        Args:
            pictures: uint8 array of shape `(pictures, height, width, channels)`, with
                1 or 3 channels.
        """
        import torch

        # The network must not be shown what it can't read.
        pictures = np.broadcast_to(pictures, (*pictures.shape[:-1], 3))
        channels_first = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        tensor = torch.from_numpy(channels_first)
        with torch.no_grad():
            found = self.network(tensor.cuda() if self.on_gpu else tensor)[0]
        return found.cpu().numpy()


def statistics(features):
    """`mu` and `sigma` of features, as a dict of float64 arrays.

    Raises:
        ValueError: if there are too few for a covariance of full rank.
    """
    count, size = features.shape
    if count <= size:
        raise ValueError(
            f"statistics of {size} features need at least {size + 1} pictures. "
            f"Received: {count}"
        )
    features = features.astype("float64")
    return {"mu": features.mean(axis=0), "sigma": np.cov(features, rowvar=False)}


def read_reference(path, resolution):
    """Reads the statistics of a file, of this program or of another.

    Args:
        path: Path of an `.npz` file with `mu` and `sigma`.
        resolution: int. Of the model.

    Returns:
        dict of float64 arrays.

    Raises:
        ValueError: if the file is something else, or of another resolution.
    """
    from keras_mdm.checksums import read_arrays

    try:
        found = read_arrays(pathlib.Path(path), MAX_BYTES, (*NAMES, "resolution"))
        known = {name: found[name] for name in NAMES}
        if any(value.dtype.kind not in "fiu" for value in known.values()):
            raise ValueError("they must be real numbers")
        known = {name: value.astype("float64") for name, value in known.items()}
        of = int(found.get("resolution", resolution))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"--fid must be an .npz file with `mu` and `sigma`, such as `keras-mdm "
            f"fid-statistics` writes. Received: {path} ({error})"
        ) from error
    size = known["mu"].shape
    if len(size) != 1 or known["sigma"].shape != size * 2:
        raise ValueError(
            f"`mu` and `sigma` of {path} must have the shapes (size,) and (size, size)."
            f" Received: {size} and {known['sigma'].shape}"
        )
    if not all(np.isfinite(value).all() for value in known.values()):
        raise ValueError(f"`mu` and `sigma` of {path} must be finite.")
    if of != resolution:
        raise ValueError(
            f"{path} is of pictures of {of} pixels, the model draws {resolution}. "
            f"Write statistics with --resolution {resolution}."
        )
    return known


def write_statistics(args, network):
    """Writes the statistics of a source's pictures, and returns their number."""
    from keras_mdm import data, files

    source = open_data(vars(args), args.split, args.source)
    found, pictures = [], []
    for index in range(len(source)):
        try:
            picture = source[index]["image"]
            prepared = data.prepare_picture(
                picture, args.resolution, upscale=args.upscale, channels=3
            )
        except ValueError as error:  # As training does: skipped, and told of.
            source.skip(source.describe(index), str(error))
            continue
        pictures.append(prepared)
        if len(pictures) == args.batch_size:
            found.append(network.features(np.stack(pictures)))
            pictures = []
    if pictures:
        found.append(network.features(np.stack(pictures)))
    if not found:
        raise ValueError(f"{args.source!r} has no usable picture. {source.report()}")
    features = np.concatenate(found)
    known = statistics(features)
    with files.whole_file(args.output) as temporary, open(temporary, "wb") as file:
        np.savez(file, **known, resolution=args.resolution, pictures=len(features))
    print(source.report())
    return len(features)


def main(arguments=None):
    args = parse_arguments(arguments)
    with start.errors_as_lines():
        if not args.output.endswith(".npz"):
            raise ValueError(f"--output must end in .npz. Received: '{args.output}'")
        if os.path.lexists(args.output):
            raise ValueError(f"--output '{args.output}' exists: give another name.")
        start.check_writable(os.path.dirname(args.output))
        start.choose_backend(None)
        count = write_statistics(args, Network())
    print(f"Statistics of {count} pictures are written to {args.output}")
