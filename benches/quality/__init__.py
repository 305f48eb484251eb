"""The counterfactual benchmark: edits of the method, of the paper and of baselines, against the exact truth."""
