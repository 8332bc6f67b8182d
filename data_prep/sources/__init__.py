"""Find and open sources: zips and folders, on this machine or in a bucket."""
