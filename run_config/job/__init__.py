"""The typed configuration of a training job: keys, bounds, presets, and what older releases stored."""
