"""How a recommender is judged: metrics, protocols over a score function, baselines to stand beside, and the table."""
