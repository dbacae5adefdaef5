"""1  Where committed row changes come from. One file per source; the file name is its ``type:``."""
