"""The only doors to the network: driver errors become ours in here.

redis/   Redis and its relatives
http     CDNs and reverse proxies
clock    the time
"""
