"""Differentiable operations by family: each is a launch and the rule that takes its gradient back."""
