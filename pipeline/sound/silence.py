"""Define silence: the peaks, as a share of full scale, below which a sound is silent."""

CLIP = 1e-4
"""A clip whose peak is below this is left out of a dataset: 80 dB below full scale, or three steps
of 16 bits."""

WINDOW = 1e-5
"""A window whose peak is not above this is not classified: 100 dB below full scale, or a third of a
step of 16 bits. All such windows have the same features, so a prediction would mean nothing. This
is lower than :data:`CLIP` because a clip that is loud enough as a whole may have quiet windows."""
