"""Handle sound: decoding, features, augmentation, networks and fingerprints."""
