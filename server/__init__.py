"""The coordinator: sends the adapter, screens what comes back, averages, keeps a checkpoint. Sees no image."""
