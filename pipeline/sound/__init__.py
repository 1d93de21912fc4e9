"""All that knows sound: decoding, features, augmentation, networks, fingerprints."""
