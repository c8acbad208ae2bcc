"""Whether soft tokens carry their documents: likelihoods, answers and cost against controls."""
