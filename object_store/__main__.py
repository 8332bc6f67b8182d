"""`python -m object_store`: two operations for processes that may not import this package.

python -m object_store put-folder FOLDER URL     copy all files below a folder to a prefix
python -m object_store exists URL KEY…           print the keys that exist, one per line
"""

import argparse
import sys
from collections.abc import Sequence

from object_store import StoreError, open_store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command. Return 0, or print one line to stderr and return the error's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m object_store", description="Copy a folder to a store, or check which keys exist."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    put = verbs.add_parser("put-folder", help="copy all files below a folder to a prefix")
    put.add_argument("folder")
    put.add_argument("url")
    exists = verbs.add_parser("exists", help="print the keys that exist, one per line")
    exists.add_argument("url")
    exists.add_argument("keys", nargs="+", metavar="KEY")
    given = parser.parse_args(arguments)
    try:
        store = open_store(given.url)
        if given.verb == "put-folder":
            store.put_folder(given.folder, "")
        else:
            for key in given.keys:
                if store.exists(key):
                    sys.stdout.write(f"{key}\n")
    except StoreError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
