"""The families of models: their registry, and one module a family with its typed configuration. Free of torch."""
