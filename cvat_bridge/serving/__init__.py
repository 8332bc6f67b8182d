"""The way back: trained models as CVAT's automatic annotation, and as a step that annotates tasks."""
