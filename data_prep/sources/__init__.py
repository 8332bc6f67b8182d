"""Find and open sources: zips and folders, on this machine and in buckets."""
