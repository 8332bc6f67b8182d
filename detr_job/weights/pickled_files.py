"""Read PyTorch's own files (`.pth`) safely with PyTorch.

The file is scanned before PyTorch reads it with `weights_only`, which does not run code either. Whatever it raises for
damaged bytes becomes `Unreadable`.
"""

import argparse
from typing import BinaryIO

import torch

from published_weights.pickle_scan import Unreadable, refuse_code, refuse_other_files


def load_pickled(file: BinaryIO) -> object:
    """Contents of a file written by `torch.save`, tensors on the host. Raises `Unreadable` for any other file."""
    start = file.read(512)
    refuse_other_files(start)
    try:
        refuse_code(file, start)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Unreadable:
        raise
    except Exception as error:
        # For damaged bytes, pickletools, zipfile and PyTorch raise many kinds of exceptions.
        raise Unreadable("it is damaged, or not a PyTorch file") from error
