"""The training pictures nearest to what a run draws: is it learned by heart?"""

import numpy as np

_MOST = 5000  # Training pictures that are looked at.


def write_nearest(path, source, pyramid, titles, upscale):
    """Writes a grid of drawn pictures, each beside the nearest training picture.

    Args:
        path: Path of the PNG file.
        source: `keras_mdm.data.Source` of pictures.
        pyramid: dict of resolution to uint8 array: what was drawn, the largest first.
        titles: Sequence of str, one for each picture, or `None`.
        upscale: bool. Whether small pictures are enlarged in training.
    """
    from keras_mdm.data import prepare_picture
    from keras_mdm.metrics import pixel_distances
    from keras_mdm.training.pictures import pyramid_grid, save_picture

    resolution, drawn = next(iter(pyramid.items()))
    channels, pictures = drawn.shape[-1], []
    for index in np.linspace(0, len(source) - 1, min(_MOST, len(source))).astype(int):
        try:
            picture = source[int(index)]["image"]
            picture = prepare_picture(
                picture, resolution, upscale=upscale, channels=channels
            )
        except ValueError:
            continue  # Unusable or too small: training skipped it too.
        pictures.append(picture)
    if not pictures:
        return
    pictures = np.stack(pictures)
    nearest = pictures[pixel_distances(drawn, pictures).argmin(1)]
    grid = pyramid_grid({resolution: drawn}, titles, truth=nearest)
    save_picture(path, np.asarray(grid))
