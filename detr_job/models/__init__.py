"""One package a family of models, and beside them the parts that several families share."""
