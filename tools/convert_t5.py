"""Keeps of a T5 model what drawing needs: the encoder, in bfloat16 if wished.

    python tools/convert_t5.py FOLDER --output DIR --dtype bfloat16

`FOLDER` is a copy of `google/flan-t5-xl` (or `hf://google/flan-t5-xl`): `config.json`,
`spiece.model` and safetensors files. `DIR` gets the same form with the encoder alone,
which `T5Encoder.from_hugging_face(DIR)` reads, and `transformers` too. FLAN-T5-XL
shrinks from 11.4 GB to 2.4 GB, which are in memory until they are written.
"""

import sys

from shared import choose_backend, is_foreseen, make_parser, tensor_bar


def parse_arguments(argv=None):
    """Reads the command line; ends the program with a message if it is wrong."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="T5 model, or hf://user/repository")
    add("--output", metavar="DIR", required=True, help="folder to write")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="bfloat16",
        help="dtype of the weights",
    )
    add("--overwrite", action="store_true", help="replace an existing folder there")
    return parser.parse_args(argv)


def main(argv=None):
    """Runs the program.

    Returns:
        Exit status: 0, or 1 with a message on the standard error.
    """
    arguments = parse_arguments(argv)
    choose_backend(None)  # It only holds the numbers: what is written is the same.
    from keras_mdm.convert.t5_folder import keep_encoder

    try:
        keep_encoder(
            arguments.folder,
            arguments.output,
            arguments.dtype,
            arguments.overwrite,
            tensor_bar("writing"),
        )
    except Exception as error:
        if not is_foreseen(error):
            raise
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(f"wrote {arguments.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
