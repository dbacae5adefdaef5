"""What an operator on this machine may ask a running daemon for, over its unix socket.

``server.py``      the socket: nobody else's, one JSON document or a stream of them for each question
``handlers.py``    what is answered under which path
``explaining.py``  kept transactions as JSON: each row, and what the rules made of it
``tailing.py``     rows, names and targets as they come, for ``invalidator tail``
``purging.py``     what ``invalidator purge`` drops by hand

The other end is ``cli/_admin.py``.
"""
