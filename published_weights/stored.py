"""Published weights in a store: `weights/<name>/`, which holds `model.safetensors` and `card.json`.

The tensors have the names of the network and are float32. The card is written last and removed first: a folder without
a card holds no weights.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from object_store import NoSuchKey, ObjectStore
from published_weights.errors import WeightsError
from run_config.locations import PUBLISHED_WEIGHTS
from run_config.weights.catalogue import PublishedFile, PublishedWeights

if TYPE_CHECKING:
    from published_weights.arrays import Array  # NumPy, which a client on a laptop may not have

FORMAT = 1
FOLDER, WEIGHTS, CARD = PUBLISHED_WEIGHTS, "model.safetensors", "card.json"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of card.json."""

    format: int = FORMAT
    name: str
    preset: str
    trained_on: str
    classes: tuple[str | None, ...]
    """The class of each row of the heads. None: unused, or its name is not known."""
    code_licence: str
    weights_licence: str
    source: str
    """URL or path of the file that was read."""
    source_sha256: str
    source_md5: str
    published_md5: str = ""
    """The authors' MD5, which the file has. Empty: none is published for this file."""
    published_sha256: str = ""
    """The first digits of the authors' SHA-256, which the file has. Empty: none is published for this file."""
    coco_ap: float | None = None
    """The authors' AP on COCO's validation images in per cent. None: unknown."""
    sha256: str
    """Of model.safetensors."""


def write(store: ObjectStore, tensors: Mapping[str, "Array"], card: Card) -> Card:
    """Write weights and card. Returns the card with the checksum of the weights."""
    import numpy as np
    from safetensors.numpy import save

    content = save({name: np.asarray(array, order="C") for name, array in tensors.items()})
    card = msgspec.structs.replace(card, sha256=hashlib.sha256(content).hexdigest())
    folder = store.child(f"{FOLDER}/{card.name}")
    folder.delete(CARD)
    folder.put_bytes(WEIGHTS, content)
    folder.put_bytes(CARD, msgspec.json.format(msgspec.json.encode(card), indent=2))
    return card


def card_of(folder: ObjectStore) -> Card | None:
    """The card in a folder; None without one. Raises WeightsError when it is damaged or of another release."""
    try:
        content = folder.get_bytes(CARD)
    except NoSuchKey:
        return None
    try:
        card = msgspec.json.decode(content, type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsError(
            f"{folder.url}/{CARD} is not a card of weights: remove the weights and pull them again"
        ) from error
    if card.format != FORMAT:
        raise WeightsError(f"{folder.url}/{CARD} has format {card.format}, this version reads {FORMAT}: pull it again")
    return card


def read(folder: ObjectStore, card: Card) -> bytes:
    """The safetensors file that belongs to a card. Raises WeightsError when it is missing or has other contents."""
    try:
        content = folder.get_bytes(WEIGHTS)
    except NoSuchKey:
        content = b""
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise WeightsError(
            f"{folder.url}/{WEIGHTS} is missing or damaged: its SHA-256 is not that of {CARD}; run `detr-workflows "
            f"weights remove {card.name}`, then `weights pull {card.name}`"
        )
    return content


def names(store: ObjectStore) -> Iterator[str]:
    """The names of all weights in the store that have a card."""
    for found in store.list(FOLDER):
        name, _, rest = found.key.removeprefix(f"{FOLDER}/").partition("/")
        if rest == CARD:
            yield name


def is_whole(store: ObjectStore, name: str) -> bool:
    """Whether the store has these weights, with the contents that their card says."""
    folder = store.child(f"{FOLDER}/{name}")
    try:
        card = card_of(folder)
        if card is None:
            return False
        read(folder, card)
    except WeightsError:
        return False
    return True


def remove(store: ObjectStore, name: str) -> None:
    """Remove weights, complete or not. Raises WeightsError when there are none of this name."""
    if not NAME.fullmatch(name):
        raise WeightsError(f"{name!r} is not a name of weights")
    folder = store.child(f"{FOLDER}/{name}")
    folder.delete(CARD)
    if not store.delete_prefix(f"{FOLDER}/{name}"):
        raise WeightsError(f"there are no weights named {name} in {store.url}/{FOLDER}")


def new_card(
    entry: PublishedWeights, source: str, *, sha256: str, md5: str, published: PublishedFile | None = None
) -> Card:
    """The card of an entry of the catalogue, before its weights are written. published: the file with checksums."""
    return Card(
        name=entry.name,
        preset=entry.preset,
        trained_on=entry.trained_on,
        classes=entry.classes,
        code_licence=entry.code_licence,
        weights_licence=entry.weights_licence,
        source=source,
        source_sha256=sha256,
        source_md5=md5,
        published_md5=published.md5 if published else "",
        published_sha256=published.sha256 if published else "",
        coco_ap=entry.coco_ap,
        sha256="",
    )
