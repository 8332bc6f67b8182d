"""Scripts that run published code and store its numbers for the tests."""
