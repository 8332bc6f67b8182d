"""Check in seconds what a run was told, before it costs hours: parameters, places, node pools and GPUs.

The command is `data-prep check`.
"""
