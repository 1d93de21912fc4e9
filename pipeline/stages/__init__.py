"""What runs, in order: a module for each stage, with `main` alone."""
