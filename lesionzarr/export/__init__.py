"""What leaves a store: pictures."""
