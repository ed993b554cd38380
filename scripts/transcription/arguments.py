"""What a task may ask for.

``parse`` turns the ``args`` object of a task into a ``Request``, or raises ``bad_input`` naming the
argument. Null always means "not given". A script adds settings of its own to the common ones.
Not here: whether the media exists and what is in it.
"""

import difflib
import os
from dataclasses import dataclass, field

from .failure import bad_input

FORMATS = ("txt", "srt", "vtt", "json")


@dataclass
class Request:
    """A checked task."""

    input: str
    outputs: dict  # format -> absolute path, or {} for names derived from the media's
    output_dir: str | None
    formats: tuple
    language: str | None
    word_timestamps: bool | None  # None: the recogniser's own habit
    vad_filter: bool
    overwrite: bool
    settings: dict = field(default_factory=dict)  # the script's own


def boolean(name, value):
    if not isinstance(value, bool):
        raise bad_input("bad_argument", f"`{name}` is {value!r}; it must be true or false")
    return value


def text(name, value):
    if not isinstance(value, str) or not value.strip():
        raise bad_input("bad_argument", f"`{name}` is {value!r}; it must be a text that is not empty")
    return value


def whole_number(least):
    def check(name, value):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise bad_input("bad_argument", f"`{name}` is {value!r}; it must be a whole number from {least}")
        return value

    return check


def one_of(*choices):
    def check(name, value):
        if value not in choices:
            raise bad_input("bad_argument", f"`{name}` is {value!r}; it must be one of {', '.join(choices)}")
        return value

    return check


def absolute_path(name, value):
    text(name, value)
    if "\0" in value or not os.path.isabs(value):
        raise bad_input("bad_argument", f"`{name}` is {value!r}; it must be an absolute path")
    return value


def format_list(name, value):
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise bad_input("bad_argument", f"`{name}` is {value!r}; it must be a list of formats")
    items = [str(item).strip() for item in items]
    items = list(FORMATS) if items == ["all"] else items
    for item in items:
        if item not in FORMATS:
            raise bad_input("bad_argument", f"`{name}` has {item!r}; the formats are {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(items))


def output_paths(name, value):
    if not isinstance(value, dict) or not value:
        raise bad_input("bad_argument", f"`{name}` must be an object of format: path")
    for kind, path in value.items():
        if kind not in FORMATS:
            raise bad_input("bad_argument", f"`{name}` has {kind!r}; the formats are {', '.join(FORMATS)}")
        absolute_path(f"{name}.{kind}", path)
    if len({os.path.normpath(path) for path in value.values()}) < len(value):
        raise bad_input("bad_argument", f"`{name}` gives two formats the same path")
    return dict(value)


COMMON = {
    "input": absolute_path,
    "outputs": output_paths,
    "output_dir": absolute_path,
    "formats": format_list,
    "language": text,
    "word_timestamps": boolean,
    "vad_filter": boolean,
    "overwrite": boolean,
    "model": text,
}


def parse(args, recogniser):
    """The checked request of `args`, or ``bad_input``."""
    if not isinstance(args, dict):
        raise bad_input("bad_argument", f"`args` is {type(args).__name__}; it must be an object")
    known = COMMON | recogniser.settings
    given = {}
    for name, value in args.items():
        if name not in known:
            raise bad_input("unknown_argument", unknown(name, known, recogniser.name))
        if value is not None:
            given[name] = known[name](name, value)
    if "input" not in given:
        raise bad_input("missing_argument", "`input` is missing: the absolute path of a media file")
    model = given.get("model", recogniser.model)
    if model != recogniser.model:
        raise bad_input("wrong_model", f"this host has loaded `{recogniser.model}`, the task names `{model}`")
    media = os.path.normpath(given["input"])
    if media in {os.path.normpath(path) for path in given.get("outputs", {}).values()}:
        raise bad_input("bad_argument", f"an output has the path of the media itself: {media}")
    return Request(
        input=media,
        outputs=given.get("outputs", {}),
        output_dir=given.get("output_dir"),
        formats=given.get("formats", FORMATS),
        language=given.get("language"),
        word_timestamps=given.get("word_timestamps"),
        vad_filter=given.get("vad_filter", True),
        overwrite=given.get("overwrite", False),
        settings={name: given[name] for name in recogniser.settings if name in given},
    )


def unknown(name, known, script):
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"it knows {', '.join(sorted(known))}"
    return f"{script} has no argument `{name}`; {hint}"
