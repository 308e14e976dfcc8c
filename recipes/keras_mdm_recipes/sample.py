"""Draws pictures from a trained model into picture files.

    keras-mdm sample runs/shapes --labels "red circle" "blue star" --grid
    keras-mdm sample runs/digits --labels 3 7 --num-samples 8 --seed 1
    keras-mdm sample runs/sentences --prompts "a red circle in the centre"

takes a run folder of a training recipe, a preset folder or the name of a built-in
preset. Files are numbered after those that are there; none is written over.
"""

import argparse
import pathlib
import re
import sys

from PIL import Image

from keras_mdm_recipes import averages, drawing, start
from keras_mdm_recipes.labels import class_title, find_labels

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CLIP_SUFFIXES = (".webp", ".gif", ".mp4")


def parse_arguments(arguments=None):
    parser = start.make_parser(__doc__)
    add = parser.add_argument
    add(
        "model",
        metavar="PRESET_OR_RUN",
        type=start.path,
        help="run or preset folder, or a preset name",
    )
    add(
        "--labels",
        nargs="+",
        help="classes to draw: numbers, or names that the run knows (default: classes "
        "in turn, --num-samples pictures in all)",
    )
    add("--prompts", nargs="+", help="sentences to draw, for a model on text")
    add("--negative-prompt", help="what guidance leads away from")
    add("--num-samples", type=int, default=4, help="pictures of each label or prompt")
    add("--seed", type=int, default=0, help="picture i is drawn with the seed plus i")
    add(
        "--resolution",
        type=start.level,
        help="largest one drawn, such as 64, or 8x64 for clips (default: the model's)",
    )
    add("--pyramid", action="store_true", help="write every resolution")
    add("--grid", action="store_true", help="write one grid, not a file each")
    add("--frame-rate", type=int, default=8, help="frames a second of clips")
    add("--batch-size", type=int, default=32, help="pictures drawn at once")
    add(
        "--output",
        type=start.path,
        help="folder, or with --grid a .png, .jpg or .webp file, for clips .webp, .gif "
        "or .mp4 "
        "(default: 'drawn' in the run folder, or here)",
    )
    add("--overwrite", action="store_true", help="an existing file is replaced")
    drawing.add_flags(parser)
    add(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=sys.stdout.isatty(),
        help="show the steps (default: in a terminal)",
    )
    return parser.parse_args(arguments)


def find_target(args):
    """Folder to write into, and the grid's file if it is named."""
    output = args.output
    if output is None:
        inside = bool(start.read_run(args.model))
        output = pathlib.Path(args.model if inside else ".") / "drawn"
        if output.is_symlink():
            raise ValueError(f"'{output}' is a link: name a folder with --output.")
    output = pathlib.Path(output)
    suffix = output.suffix.lower()
    if output.is_dir() or suffix not in {
        *CLIP_SUFFIXES,
        *Image.registered_extensions(),
    }:
        if output.exists() and not output.is_dir():
            raise ValueError(f"--output '{output}' is a file, not a folder.")
        return output, None
    if not args.grid:
        raise ValueError(f"--output is a {output.suffix} file; that needs --grid.")
    if suffix not in (*PICTURE_SUFFIXES, *CLIP_SUFFIXES):
        raise ValueError(
            f"--output must end in {', '.join(PICTURE_SUFFIXES)}, or for clips in "
            f"{', '.join(CLIP_SUFFIXES)}. Received: '{output}'"
        )
    if output.exists() and not args.overwrite:
        raise ValueError(f"--output '{output}' exists; pass --overwrite to replace it.")
    return output.parent, output


def next_number(folder):
    """First number that no file of the folder begins with."""
    numbers = [re.match(r"(\d+)", entry.name) for entry in folder.glob("*.*")]
    return max([int(found[1]) for found in numbers if found], default=-1) + 1


def draw(args):
    if args.num_samples < 1:
        raise ValueError(f"--num-samples must be at least 1. Got {args.num_samples}.")
    folder, file = find_target(args)
    start.check_writable(folder)
    config = start.read_run(args.model)
    class_names = config.get("class_names")
    mdm = drawing.load_model(args, args.model)

    from keras_mdm.text_files import cut
    from keras_mdm.training.pictures import pyramid_frames

    if mdm.batch_spec.text is not None and not args.prompts:
        raise ValueError("the model draws from sentences: give --prompts.")
    labels, each = find_labels(
        args.labels, mdm.batch_spec.num_classes, class_names, args.num_samples
    )
    averages.take(mdm, args.model, args.ema)
    pyramid, _ = drawing.draw(
        args,
        mdm,
        args.prompts,
        labels=labels,
        negative_prompt=args.negative_prompt,
        num_samples=each,
        resolution=args.resolution,
        return_pyramid=True,
        progress=args.progress,
    )
    largest = next(iter(pyramid))
    if not args.pyramid:
        pyramid = {largest: pyramid[largest]}
    titles = None
    named = args.prompts
    if labels is not None:
        named = [class_title(label, class_names) for label in labels]
    if named is not None:
        titles = [name for name in named for _ in range(each)]
    count, noun = len(pyramid[largest]), "pictures"
    if pyramid[largest].ndim == 5:
        noun = "clips"
    number = next_number(folder)
    if args.grid:
        frames = pyramid_frames(pyramid, titles)
        file = save(file or folder / f"{number:05}_grid", frames, args.frame_rate)
        print(f"{count} {noun} in {file}")
        return
    for i in range(count):
        title = f"_{titles[i]}" if titles else ""
        # Names of files are limited in bytes, not in letters.
        stem = cut(re.sub(r"[^\w.-]+", "-", f"{number + i:05}{title}"), 120)
        for resolution, pictures in pyramid.items():
            frames = pictures[i] if pictures.ndim == 5 else pictures[i][None]
            save(folder / f"{stem}_{resolution}px", frames, args.frame_rate)
    print(f"{count} {noun} in {folder}, numbered from {number:05}")


def save(path, frames, frame_rate):
    """Writes a picture (one frame) or a clip; the name may lack its suffix.

    Returns:
        Path of the file.
    """
    import keras_mdm
    from keras_mdm.training.pictures import save_picture

    wanted = CLIP_SUFFIXES if len(frames) > 1 else PICTURE_SUFFIXES
    if path.suffix.lower() not in (*PICTURE_SUFFIXES, *CLIP_SUFFIXES):
        path = path.with_name(path.name + wanted[0])
    if path.suffix.lower() not in wanted:
        raise ValueError(f"--output must end in {' or '.join(wanted)}. Got '{path}'.")
    if len(frames) > 1:
        keras_mdm.write_video(path, frames, frame_rate)
    else:
        save_picture(path, frames[0])
    return path


def main(arguments=None):
    args = parse_arguments(arguments)
    with start.errors_as_lines():
        draw(args)
