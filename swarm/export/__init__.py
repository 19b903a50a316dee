"""What a task came to, for other programs: `scalars` takes it from its rounds (pure), `events` writes TensorBoard's files."""
