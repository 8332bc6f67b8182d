"""The model families: their registry, and for each family one module with its typed configuration. Free of torch."""
