"""The place that `cvat-finetune-checkpoint` names: `weights:NAME`, `run:NAME`, a location, or a word for one.

What `auto` means is in `automatic_start`.
"""

from object_store import ObjectStore
from published_weights.stored import CARD, FOLDER, NAME
from run_config.errors import ConfigError
from run_config.locations import leads_elsewhere
from run_config.weights.automatic import RUN, WEIGHTS, is_bare, pull_command
from run_config.weights.catalogue import ALL_LICENCES, published


def start_from(text: str, store: ObjectStore, output: str, run: str) -> str:
    """The location that the text names: a key below the store for weights and runs, else the text itself.

    text: neither `auto` nor `none`.
    output: the prefix of the folders of runs. run: the run that is starting, which a bare word never means.

    Raises ConfigError when the name is malformed, or a bare word has two meanings. A resumed run does not need its
    weights any more, so whether they are there is not asked.
    """
    text = text.strip()
    if text.startswith(WEIGHTS):
        name = text.removeprefix(WEIGHTS)
        if not NAME.fullmatch(name):
            raise ConfigError(f"{text!r}: {name!r} is not a name of weights; `detr-workflows weights list` lists them")
        return f"{FOLDER}/{name}"
    if text.startswith(RUN):
        name = text.removeprefix(RUN)
        if not name or "/" in name or leads_elsewhere(name):
            raise ConfigError(f"{text!r}: {name!r} is not the name of a run; give the last part of its folder")
        return f"{output}/{name}"
    if not is_bare(text):
        return text
    named = meanings(text, store, output, run)
    there = store.exists(text) or next(iter(store.list(text)), None) is not None
    if len(named) + there > 1:
        raise ConfigError(ambiguous(text, [*named, *([f"{store.url}/{text}"] if there else [])]))
    return next(iter(named.values()), text)


def meanings(word: str, store: ObjectStore, output: str, run: str) -> dict[str, str]:
    """What a bare word may mean besides a location: `weights:…` or `run:…` → its key below the store."""
    found: dict[str, str] = {}
    if NAME.fullmatch(word) and store.exists(f"{FOLDER}/{word}/{CARD}"):
        found[f"{WEIGHTS}{word}"] = f"{FOLDER}/{word}"
    if word != run and not leads_elsewhere(word) and store.exists(f"{output}/{word}/run.json"):
        found[f"{RUN}{word}"] = f"{output}/{word}"
    return found


def missing(url: str) -> str:
    """A sentence with the command that brings the weights, if the URL is a place for published weights; else ""."""
    store, separator, name = url.rpartition(f"/{FOLDER}/")
    if not separator or not NAME.fullmatch(name):
        return ""
    lacks = f"the store has no weights named {name}"
    try:
        published(name, ALL_LICENCES)
    except ConfigError as unknown:
        return f"{lacks}, and {unknown}"
    return f"{lacks}; run `{pull_command(name, store)}`"


def ambiguous(word: str, places: list[str]) -> str:
    """The sentence about a word with two meanings."""
    return f"{word!r} has {len(places)} meanings: write {' or '.join(places)}"
