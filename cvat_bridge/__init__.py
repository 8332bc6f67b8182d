"""Between CVAT and the workflows: the button, the step `export`, and the way of predictions back."""
