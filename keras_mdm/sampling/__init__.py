"""Drawing: conditions and noise in, pictures of every level out. Used by `MDM`."""
