"""How fast training and validation are, beside what one would write first and what can be installed."""
