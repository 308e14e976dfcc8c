"""Data on their way into `fit`, and what surrounds training steps. Used by `MDM`."""
