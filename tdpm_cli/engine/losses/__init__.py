"""Adversarial losses of logits [B], for the prior and the discriminator. One file a loss; see `AdversarialLoss`."""
