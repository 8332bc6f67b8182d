"""Annotation formats: each module reads one into the record of `record.py`; `registry.py` lists them."""
