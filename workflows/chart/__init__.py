"""What is written for the Helm chart, and plain manifests for those without Helm."""
