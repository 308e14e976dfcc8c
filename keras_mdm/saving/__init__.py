"""Models on disk: presets, published and bundled weights. Used by `MDM`."""
