"""Routes, middleware, schemas, and the server process."""
