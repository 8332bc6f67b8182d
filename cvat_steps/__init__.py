"""The workflow steps that use CVAT: `export`, and `annotate`, which adds a model's boxes to tasks."""
