"""The step `check`: find wrong parameters, places, node pools and GPUs in seconds, before a run costs hours.

The command is `data-prep check`.
"""
