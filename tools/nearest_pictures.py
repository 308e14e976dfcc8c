"""Draws prompts that training saw and prompts that it did not, for an honest look.

    python tools/nearest_pictures.py mdm_emoji_64 pictures/emoji --output nearest.png

Beside each drawn picture stand the real one of the prompt, if there is one, and the
training picture that is nearest to what was drawn. Distances are root mean squares over
pixels in [0, 255]. The folder is one of `get_pictures.py`, or any with captions.
"""

import pathlib

import numpy as np
from shared import (
    choose_backend,
    errors_as_lines,
    make_parser,
    read_captioned,
    text_model,
)


def look(mdm, folder, count, prompts=(), resolution=None, **sampling):
    """Draws, and finds what is nearest.

    Args:
        mdm: `MDM` on text.
        folder: Path of a folder with captions.
        count: int. Prompts of the training and of the test split.
        prompts: Sequence of str. Further ones.
        resolution: int. Defaults to the model's largest.
        **sampling: Arguments of `generate`.

    Returns:
        A tuple: a Pillow picture, and a list of lines that say how near.
    """
    from keras_mdm.levels import read_level
    from keras_mdm.metrics import pixel_distances
    from keras_mdm.training.pictures import pyramid_grid

    resolution = resolution or read_level(mdm.resolution)[1]
    seen, items, _ = read_captioned(folder, resolution, "train")
    seen_captions = [item["caption"] for item in items]
    unseen, items, _ = read_captioned(folder, resolution, "test")
    unseen_captions = [item["caption"] for item in items]
    real, titles, given = [], [], []
    for name, pictures, captions in (
        ("seen", seen, seen_captions),
        ("not seen", unseen, unseen_captions),
    ):
        chosen = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).astype(
            int
        )
        real += [pictures[i] for i in chosen]
        given += [captions[i] for i in chosen]
        titles += [f"{name}: {captions[i]}" for i in chosen]
    real += [np.full_like(seen[0], 255) for _ in prompts]
    given += prompts
    titles += [f"asked: {prompt}" for prompt in prompts]
    drawn = mdm.generate(given, resolution=resolution, **sampling)
    to_seen = pixel_distances(drawn, seen)
    nearest = to_seen.argmin(1)
    grid = pyramid_grid(
        {resolution: drawn}, titles, truth=[np.stack(real), seen[nearest]]
    )
    to_real = pixel_distances(drawn, np.stack(real)).diagonal()
    lines = []
    for name in ("seen", "not seen", "asked"):
        of = [i for i, title in enumerate(titles) if title.startswith(name + ": ")]
        if of:
            own = sum(seen_captions[nearest[i]] == given[i] for i in of)
            line = f"{name}: {len(of)} drawn, to the nearest training picture "
            line += (
                f"{to_seen[of].min(1).mean():.1f}; it has the prompt as its caption "
            )
            line += f"for {own}"
            if name != "asked":
                line += f"; to the real picture {to_real[of].mean():.1f}"
            lines.append(line)
    held_out = pixel_distances(unseen, seen).min(1).mean()
    lines.append(f"real pictures held out, to the nearest training one: {held_out:.1f}")
    return grid, lines


def main(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("model", help="preset name, preset folder or run folder of a model on text")
    add("folder", type=pathlib.Path, help="folder of pictures with captions")
    add("--output", required=True, help="picture file to write, such as nearest.png")
    add("--count", type=int, default=12, help="prompts of each split")
    add("--prompts", nargs="+", default=[], help="further prompts")
    add("--resolution", type=int, help="of the pictures (default: the model's largest)")
    add("--seed", type=int, default=0, help="of the noise")
    add("--guidance-scale", type=float, help="1 is none (default: the model's)")
    add("--num-steps", type=int, help="sampler steps (default: the model's)")
    add("--backend", help="Keras backend (default: as for the recipes)")
    given = parser.parse_args(arguments)
    with errors_as_lines():
        output = pathlib.Path(given.output).expanduser()
        if output.exists():
            raise FileExistsError(
                17, "is there already; give another name", str(output)
            )
        if given.count < 1:
            raise ValueError(f"--count must be at least 1. Received: {given.count}")
        choose_backend(given.backend)

        from keras_mdm.training.pictures import save_picture

        grid, lines = look(
            text_model(given.model),
            given.folder.expanduser(),
            given.count,
            given.prompts,
            given.resolution,
            seed=given.seed,
            guidance_scale=given.guidance_scale,
            num_steps=given.num_steps,
        )
        save_picture(output, grid)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
