"""Reading the outbox: rows that triggers wrote (``provision.capture``) become batches, and are deleted when confirmed.

options    what it can be told
fitness    whether it can be read
history    which outbox it is, and from where on it holds everything
window     which rows are new, without ever passing over a transaction that commits late
loading    how values leave a connection: arrays as they came
deletion   what is confirmed goes, part by part
images     arrays of texts become row messages as logical replication would send them
pace       when to look again, and when writers must notify
reader     rows go into the open batch
session    one connection: the lock, the polling, the deleting
"""
