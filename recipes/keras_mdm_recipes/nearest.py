"""The training pictures nearest to what a run draws: is it learned by heart?"""

import numpy as np

_MOST = 5000  # Training pictures that are looked at.


def write_nearest(path, source, mdm, options, upscale):
    """Draws, and writes a grid of each picture beside the nearest training picture.

    Args:
        path: Path of the PNG file, or `None` to draw alone, as one of several processes
            must whose first writes.
        source: `keras_mdm.data.Source` of pictures.
        mdm: `MDM`.
        options: dict. Arguments of `generate`, and `titles`.
        upscale: bool. Whether small pictures are enlarged in training.
    """
    from keras_mdm.data.transforms import prepare
    from keras_mdm.metrics import pixel_distances
    from keras_mdm.training.pictures import pyramid_grid, save_picture

    options = dict(options)
    titles = options.pop("titles", None)
    drawn = mdm.generate(**options)
    if path is None:
        return
    size, channels = drawn.shape[1], drawn.shape[-1]
    pictures = []
    for index in np.linspace(0, len(source) - 1, min(_MOST, len(source))).astype(int):
        try:
            picture = source[int(index)]["image"]
            picture = prepare(picture, size, upscale=upscale, channels=channels)
        except ValueError:
            continue  # Unusable or too small: training skipped it too.
        pictures.append(picture)
    if not pictures:
        return
    pictures = np.stack(pictures)
    nearest = pictures[pixel_distances(drawn, pictures).argmin(1)]
    grid = pyramid_grid({mdm.resolution: drawn}, titles, truth=nearest)
    save_picture(path, np.asarray(grid))
