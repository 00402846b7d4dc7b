"""The container image and the manifests, on real container and database programs."""
