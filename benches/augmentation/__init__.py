"""What the augmentation bench is made of: the spoilt training set, and the classifier that learns from it."""
