"""Labels to draw: spread over the classes, or found by name."""

import math
import re


def spread_labels(num_samples, num_classes):
    """Labels for a grid: classes in turn, or some from all over if they don't fit."""
    stride = 1
    if num_samples < num_classes:
        # Neighboring classes are often alike: colours of a shape, breeds of a dog.
        stride = max(1, num_classes // 4)
        while math.gcd(stride, num_classes) != 1:
            stride += 1
    return [i * stride % num_classes for i in range(num_samples)]


def class_title(label, class_names):
    """Name of a class, as it can be shown, or its number."""
    from keras_mdm.text_files import cut, printable

    named = class_names and label < len(class_names)
    return cut(printable(class_names[label]), 200) if named else str(label)


def check_classes(dataset, trained, found):
    """Raises a `ValueError` unless the names of classes are those of training."""
    if list(trained) != list(found):
        gone, new = (
            ", ".join(repr(n) for n in names if n not in others) or "none"
            for names, others in ((trained, found), (found, trained))
        )
        raise ValueError(
            f"the classes of '{dataset}' are not those that the model was trained on. "
            f"Gone: {gone}. New: {new}. Labels are numbers in the order of the names, "
            "so each must be there again under its name."
        )


def find_labels(given, num_classes, class_names, num_samples):
    """Turns `--labels` into numbers; returns them and the pictures of each.

    Without `num_classes` the model is unconditional.
    """
    if num_classes is None:
        if given:
            raise ValueError("--labels: the model is not class-conditional.")
        return None, num_samples
    if given is None:
        return spread_labels(num_samples, num_classes), 1
    labels = []
    for label in given:
        # Names first: the digits' are numbers, and the same ones.
        if class_names and label in class_names:
            labels.append(class_names.index(label))
        elif re.fullmatch(r"\d+", label) and int(label) < num_classes:
            labels.append(int(label))
        else:
            known = f"0 to {num_classes - 1}"
            if class_names:
                names = range(min(len(class_names), 40))
                names = [class_title(name, class_names) for name in names]
                known += f", or one of {', '.join(names)}"
            raise ValueError(f"--labels must be {known}. Received: {label!r}")
    return labels, num_samples
