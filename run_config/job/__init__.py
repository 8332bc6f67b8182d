"""The typed configuration of a training job: keys, bounds, presets, and reading what older releases stored."""
