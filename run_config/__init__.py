"""The parameters that a person sets, and the typed configuration of a training job. Imports in milliseconds."""
