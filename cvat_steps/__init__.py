"""The workflow steps that talk to CVAT: `export`, and `annotate`, which draws a model's boxes into tasks."""
