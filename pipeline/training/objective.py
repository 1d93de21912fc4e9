"""Name the figure that chooses the epoch and the trial.

It has a module of its own, so that a plot or a page can name it without loading Keras.
"""

BEST = "val_log_loss"
"""What chooses epoch and trial. Accuracy moves in steps of one clip in a fold; this does not."""
