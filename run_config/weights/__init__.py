"""Published weights: the catalogue of those that can be brought into a store, and the names of their classes."""
