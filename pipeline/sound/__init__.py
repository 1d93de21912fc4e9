"""Everything specific to sound: decoding, features, augmentation, networks, fingerprints."""
