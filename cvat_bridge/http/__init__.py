"""Routes, what stands before and behind them, and the process that serves them."""
