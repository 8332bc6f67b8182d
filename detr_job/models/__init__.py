"""Model families, one package each, and the modules that several families share."""
