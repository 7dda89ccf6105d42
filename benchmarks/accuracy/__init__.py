"""How accurate the lists are: baselines, priors, models, matching, yes or no."""
