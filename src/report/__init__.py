"""Pages that people look at: of an evaluation, of two beside each other, and of a training run. Each is one HTML file."""
