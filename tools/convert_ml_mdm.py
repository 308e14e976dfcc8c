"""Converts checkpoints of the official implementation to presets, and back.

A checkpoint of apple/ml-mdm becomes a folder for `MDM.from_preset`:

    python tools/convert_ml_mdm.py vis_model.pth --config YAML --output DIR

and with `--reverse` a preset becomes `vis_model.pth` and `config.yaml`, which the
official code reads. Both directions keep every number as it is.

The checkpoint is read by torch (`pip install "keras-mdm[convert]"`), which runs nothing
that it holds: a file that names other functions than those that describe tensors is
refused. Every tensor is checked; missing, unexpected and misshapen ones are listed by
name, and then nothing is written. The output folder appears whole or not at all.

Measured with a random checkpoint of the 256-pixel model (477 million parameters,
1.91 GB) on two cores of a Xeon that other jobs shared, with JAX, by the time of the
processor: to a preset 15 s, at most 3.2 GB of memory beside the file, which is mapped;
back 18 s, 4.5 GB, every weight the same; `MDM.from_preset(DIR, ema_momentum=None)`
8 s, 2.8 GB.
"""

import sys
import time

from shared import choose_backend, is_foreseen, make_parser, tensor_bar


def parse_arguments(argv=None):
    """Reads the command line; ends the program with a message if it is wrong."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "checkpoint",
        metavar="CHECKPOINT",
        help="official checkpoint file; with --reverse, a preset (a folder, a built-in "
        "name or hf://user/repository)",
    )
    add("--config", metavar="YAML", help="official configuration of the checkpoint")
    add("--output", metavar="DIR", required=True, help="folder to write")
    add("--overwrite", action="store_true", help="replace an existing folder there")
    add("--reverse", action="store_true", help="from a preset to the official form")
    arguments = parser.parse_args(argv)
    if arguments.reverse and arguments.config:
        parser.error("--config belongs to a checkpoint; a preset has its own")
    if not arguments.reverse and not arguments.config:
        parser.error("--config is needed: the YAML file of the checkpoint")
    return arguments


def main(argv=None):
    """Runs the program.

    Returns:
        Exit status: 0, or 1 with a message on the standard error.
    """
    arguments = parse_arguments(argv)
    choose_backend(None)  # It only holds the numbers: what is written is the same.
    from keras_mdm.convert.convert import convert_checkpoint, convert_preset

    started = time.monotonic()
    try:
        if arguments.reverse:
            convert_preset(
                arguments.checkpoint,
                arguments.output,
                arguments.overwrite,
                tensor_bar("writing"),
            )
        else:
            convert_checkpoint(
                arguments.checkpoint,
                arguments.config,
                arguments.output,
                arguments.overwrite,
                tensor_bar("reading"),
            )
    except Exception as error:
        if not is_foreseen(error):
            raise
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    print(f"wrote {arguments.output} in {seconds:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
