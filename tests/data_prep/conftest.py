"""What the tests of data_prep share: a store in a folder, S3 on a real server, and short ways to prepare."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.export_reader import ReadingRules
from data_prep.prepare import Prepared, PrepareRequest, prepare
from object_store import ObjectStore, open_store
from prepared_set.manifest import Options
from prepared_set.reader import LocalSet, PreparedSet
from tests.data_prep.export_builder import Export, write_zip
from tests.object_store.conftest import answering_server, bucket, no_aws, s3, s3_client, s3_server

__all__ = ["answering_server", "bucket", "no_aws", "s3", "s3_client", "s3_server"]

Prepare = Callable[..., Prepared]
Load = Callable[..., LocalSet]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "store")


@pytest.fixture
def run_prepare(tmp_path: Path, store: ObjectStore) -> Prepare:
    """Prepare exports (or paths of sources) into the store."""

    def run(
        *pool: Export | Path | str,
        val: tuple[Export | Path | str, ...] = (),
        test: tuple[Export | Path | str, ...] = (),
        into: ObjectStore = store,
        rules: ReadingRules | None = None,
        **options: object,
    ) -> Prepared:
        def names(sources: tuple[Export | Path | str, ...], role: str) -> tuple[str, ...]:
            return tuple(
                str(write_zip(tmp_path / f"{role}-{number}.zip", source) if isinstance(source, Export) else source)
                for number, source in enumerate(sources)
            )

        request = PrepareRequest(
            names(pool, "pool"), names(val, "val"), names(test, "test"), Options(**options), rules or ReadingRules()
        )
        return prepare(request, into, lambda *_: b"the report has tests of its own")

    return run


@pytest.fixture
def load(tmp_path: Path, store: ObjectStore, run_prepare: Prepare) -> Load:
    """Prepare, and pull the set back."""

    def run(*pool: Export | Path | str, **more: object) -> LocalSet:
        done = run_prepare(*pool, **more)
        return PreparedSet.open(store, done.manifest.id).pull(tmp_path / "pulled")

    return run
