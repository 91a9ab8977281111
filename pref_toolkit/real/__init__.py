"""A real small model, and preferences in real language whose truth a program can check."""
