"""Models, training, prediction and model export."""
