"""Training: recipes, networks, rows, and the one loop for all of them."""
