"""4  Where stale entries live. One file per target; the file name is its ``type:``."""
