"""The formats that the double exports."""
