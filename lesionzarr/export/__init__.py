"""What leaves a store: pictures and tables."""
