"""`detr-workflows weights`: list, pull, import, show and remove published weights."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from published_weights.errors import WeightsError, joined
from run_config.locations import store_url
from run_config.step_parameters import From, ParametersJson, texts_from_json
from run_config.weights.catalogue import names_in, on_offer, published
from run_config.wording import aligned
from run_config.writable import require_writable

if TYPE_CHECKING:
    from object_store import ObjectStore
    from run_config.installation import Installation

app = typer.Typer(
    help="Published weights: bring them into a store, from where runs start with them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Store = Annotated[
    str, typer.Option(help="Store: a folder, file:///folder or s3://bucket/prefix. Default: the installation's.")
]
Name = Annotated[str, typer.Argument(help="Name in the catalogue.")]


@app.command("list")
def list_weights(store: Store = "") -> None:
    """List the catalogue, and which of it the store has."""
    from published_weights.stored import FOLDER, WEIGHTS, names

    there: dict[str, str] = {}
    if store or _installation():
        opened = _opened(store)
        for name in names(opened):
            has_file = opened.exists(f"{FOLDER}/{name}/{WEIGHTS}")
            there[name] = "in the store" if has_file else "its file is missing in the store: pull it again"
    rows = [
        (
            name,
            f"{one.parameters_m:5.1f} M",
            one.weights_licence,
            one.trained_on,
            f"COCO AP {one.coco_ap}" if one.coco_ap else "",
            there.get(name, ""),
        )
        for name, one in on_offer(_licences()).items()
    ]
    typer.echo("\n".join(aligned(rows)))


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names in the catalogue."), From("weights")],
    store: Annotated[Store, From("store")] = "",
    mirror: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="DETR_WORKFLOWS_WEIGHTS_FROM",
            help="URL or folder with the published files below their paths, instead of the publishers.",
        ),
    ] = "",
    parameters_json: ParametersJson = "{}",
) -> None:
    """Download weights, check them, and store them. Weights that the store has are left as they are.

    HF_ENDPOINT names a mirror of Hugging Face; HTTPS_PROXY and NO_PROXY work as usual.
    """
    from published_weights import bring
    from published_weights.stored import is_whole
    from run_config.installation import permitted

    permitted(texts_from_json(parameters_json) | ({"store": store} if store else {}))
    opened = _opened(store)
    licences = _licences()
    entries = [published(name, licences) for name in dict.fromkeys(names_in(" ".join(names)))]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detr-workflows" / "weights"
    require_writable(cache, "XDG_CACHE_HOME")
    failures: list[WeightsError] = []
    for entry in entries:
        if is_whole(opened, entry.name):
            typer.echo(f"{entry.name}: already in {opened.url}")
            continue
        try:
            bring.pull(opened, entry, mirror, cache, lambda line: typer.echo(line, err=True))
        except WeightsError as error:
            failures.append(error)
        else:
            _stored(opened, entry.name)
    if failures:
        raise joined(failures)


@app.command("import")
def import_weights(
    file: Annotated[str, typer.Argument(help="A published file: a path, or a URL of a store.")],
    name: Annotated[str, typer.Option("--as", help="Name in the catalogue.")],
    store: Store = "",
) -> None:
    """Store the weights of a published file that you have, for machines without internet."""
    from published_weights.bring import import_file

    opened = _opened(store)
    _stored(opened, import_file(opened, published(name, _licences()), file).name)


@app.command()
def show(name: Name, store: Store = "") -> None:
    """Show where weights are published, and the card of those in the store."""
    from published_weights.stored import FOLDER, card_of
    from run_config.weights.automatic import pull_command

    entry = published(name, _licences())
    ap = f", AP {entry.coco_ap} on COCO" if entry.coco_ap else ""
    typer.echo(f"{name}: {entry.preset}, {entry.parameters_m} M parameters, trained on {entry.trained_on}{ap}")
    typer.echo(f"licence: {entry.code_licence} (code), {entry.weights_licence} (weights)")
    for file in entry.files:
        checksum = f", MD5 {file.md5}" if file.md5 else f", SHA-256 {file.sha256}…" if file.sha256 else ""
        typer.echo(f"published: {file.host}/{file.path}{checksum}")
    known = [one for one in entry.classes if one is not None]
    typer.echo(f"classes: {', '.join(known) or f'{len(entry.classes)} rows without known names'}")
    if not store and _installation() is None:
        return
    opened = _opened(store)
    card = card_of(opened.child(f"{FOLDER}/{name}"))
    if card is None:
        typer.echo(f"not in {opened.url}: run `{pull_command(name, opened.url)}`")
    else:
        checksum = card.published_md5 or card.published_sha256
        checked = "has the published checksum" if checksum else "no checksum is published for it"
        typer.echo(f"in {opened.url}, from {card.source} ({checked}); SHA-256 {card.source_sha256}")


@app.command()
def remove(name: Name, store: Store = "") -> None:
    """Remove weights from the store. Models that were trained from them stay."""
    from published_weights.stored import remove as remove_stored

    remove_stored(_opened(store), name)
    typer.echo(f"{name}: removed")


def _stored(store: "ObjectStore", name: str) -> None:
    typer.echo(f"{name}: stored in {store.url}")


def _installation() -> "Installation | None":
    from run_config.installation import load_installation  # reads YAML, which takes time to import

    return load_installation()


def _licences() -> tuple[str, ...]:
    installation = _installation()
    return () if installation is None else installation.weights.allowed_licences


def _opened(text: str) -> "ObjectStore":
    from object_store import open_store  # takes time to import

    if not text:
        installation = _installation()
        if installation is None:
            raise WeightsError("--store is missing: give a folder, file:///folder or s3://bucket/prefix")
        text = installation.store
    return open_store(store_url(text))
