"""CDNs and reverse proxies (L3), one file each; docs/how-to/add-a-cdn.md is the recipe."""
