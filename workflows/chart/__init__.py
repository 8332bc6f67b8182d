"""Generated files of the Helm chart, and plain manifests for people who do not use Helm."""
