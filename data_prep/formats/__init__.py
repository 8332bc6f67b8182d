"""Annotation formats: each module reads one format into the record of `record.py`; `registry.py` lists them."""
