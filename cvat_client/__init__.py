"""What the service and the steps know of CVAT: its REST API, what a run is about, settings, signed permissions."""
