"""What leaves a store: pictures, tables, and datasets of other tools."""
