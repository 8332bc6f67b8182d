"""Wrong input by the hundred: makers of mutated inputs, each the same for the same seed, and what reads them."""
