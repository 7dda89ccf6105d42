"""Find the parts that make the best lists for a dataset, and fit them in one go."""
