"""The contract between preparation, training and evaluation: what a prepared set holds, and how its images are decoded.

`manifest` describes a set, `reader` brings it here and reads it, `decoding` is the one rule by which a file becomes
pixels. A set is written by `data_prep`. Knows no torch.
"""
