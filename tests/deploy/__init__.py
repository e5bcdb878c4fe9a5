"""The plain manifests: what they are made from, and that they do in a cluster what they say."""
