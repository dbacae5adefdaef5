"""Listening to an application's own channel: its notifications become batches. What nobody hears is lost.

options    what it can be told
payload    what a notification says, and the row message that it stands for
reader     notifications go into the open batch
listener   the connection that hears them
proof      whether notifications really come back to us
session    one connection's life: the lock, the proof, the heartbeat
"""
