"""Evidence of where code runs, from both sides: collecting it there, verifying it here, judging it by a policy.

Neither network servers nor stored keys: those are the broker's.
"""
