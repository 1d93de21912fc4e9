"""Name the figure that chooses the best epoch and the best trial.

It has a module of its own, so that a plot or a page can name it without loading Keras.
"""

BEST = "val_log_loss"
"""Log loss on the validation fold.

Accuracy changes in steps of one clip, so it distinguishes fewer epochs and trials than this does.
"""
