"""Names, layouts and configurations of other implementations of MDM."""
