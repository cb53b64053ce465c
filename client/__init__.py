"""One hospital: trains the adapter that it receives on its own images and answers with adapter tensors alone."""
