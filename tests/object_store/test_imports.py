"""What a program pays that only wants `--help`, or a folder, or has forked."""

import subprocess
import sys
import textwrap

import pytest


def python(code: str) -> str:
    """Run some lines in a fresh interpreter and return what they print."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("library", ["boto3", "obstore"])
def test_a_folder_as_a_store_needs_no_s3_library(library: str):
    assert (
        python(f"""
        import sys
        sys.modules[{library!r}] = None  # importing it would fail
        import object_store
        import pathlib, tempfile
        with tempfile.TemporaryDirectory() as folder:
            store = object_store.open_store(folder)
            store.put_bytes("x", b"1")
            print(store.get_bytes("x"))
    """)
        == "b'1'\n"
    )


def test_the_package_exports_what_it_names():
    assert (
        python("""
        import object_store
        print([name for name in object_store.__all__ if not hasattr(object_store, name)])
    """)
        == "[]\n"
    )


def test_errors_that_pass_have_another_exit_code_than_those_that_do_not():
    assert (
        python("""
        from object_store import *
        import object_store.errors as errors
        family = [kind for kind in vars(errors).values() if isinstance(kind, type)]
        print(sorted(kind.__name__ for kind in family if kind.exit_code == 75))
        print({kind.exit_code for kind in family}, all(issubclass(kind, StoreError) for kind in family))
    """)
        == "['ObjectChanged', 'PassingError', 'StoreUnavailable', 'WrongBytes']\n{2, 75} True\n"
    )
