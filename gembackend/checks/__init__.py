"""What `gembackend check` asks of each dependency: whether the service could work with it."""
