"""Templates become programs: Jinja texts are checked, bounded and compiled to one batch function a stream."""
