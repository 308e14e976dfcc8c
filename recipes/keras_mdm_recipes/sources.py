"""Opens the data of a run, within the limits of its settings."""

import dataclasses

LIMITS_HELP = (
    "of what is read of files, such as picture_pixels=4000000,caption_length=500; see "
    "keras_mdm.data.Limits"
)


def open_data(settings, split, name=None, **options):
    """The source of a run's settings.

    Args:
        settings: dict of the section `data`.
        split: str.
        name: str. A source in place of the settings' own.
        options: Further arguments of `keras_mdm.data.open_source`.

    Raises:
        ValueError: if the settings name a limit that there is not.
    """
    from keras_mdm import data

    limits = settings.get("limits") or {}
    known = [field.name for field in dataclasses.fields(data.Limits)]
    for key in limits.keys() - known:
        raise ValueError(f"there is no limit {key!r}. Limits are: {', '.join(known)}.")
    return data.open_source(
        name or settings["dataset"],
        split,
        settings["data_dir"],
        limits=data.Limits(**limits),
        **options,
    )
