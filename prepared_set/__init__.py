"""The contract between preparation, training and evaluation: what a prepared set holds, how images are decoded.

`manifest` describes a set, `reader` downloads and reads it, `decoding` turns an image file into pixels. Sets
are written by `data_prep`. This package does not import torch.
"""
